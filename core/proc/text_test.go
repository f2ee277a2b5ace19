package proc

import (
	"encoding/json"
	"testing"
)

func TestText(t *testing.T) {
	for name, want := range map[text]string{"": `""`, "büro": `"büro"`, "b\xc3": `{"base64":"YsM="}`} {
		b, err := json.Marshal(name)
		if err != nil || string(b) != want {
			t.Errorf("%q is %s, %v, want %s", name, b, err, want)
		}
		var got text
		if err := json.Unmarshal(b, &got); err != nil || got != name {
			t.Errorf("%s is %q, %v, want %q", b, got, err, name)
		}
	}
	var got text
	for _, bad := range []string{`7`, `{"base64":7}`, `{"base64":"!"}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s is %q", bad, got)
		}
	}
}
