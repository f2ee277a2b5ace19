package core

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"
)

func TestSaveAndLoad(t *testing.T) {
	st := newStage(t, time.Minute, "a", "b")
	st.actors["a"].state, st.actors["b"].state = "one", "two"
	sections, err := st.Save(t.Context())
	want := []pluginSection{{"a", 3, []byte("one")}, {"b", 3, []byte("two")}}
	if err != nil || !reflect.DeepEqual(sections, want) {
		t.Errorf("sections %v, %v", sections, err)
	}
	st.wantTape(t, "a:save", "b:save")

	for _, tt := range []struct {
		name     string
		sections []pluginSection
		calls    []string
		want     []string // parts of the error
	}{
		{"all", []pluginSection{{"b", 3, []byte("B")}, {"a", 2, []byte("A")}}, []string{"a:load", "b:load"}, nil},
		{"a fresh plugin", []pluginSection{{"b", 3, nil}}, []string{"b:load"}, nil},
		{"nothing", nil, nil, nil},
		{"a missing plugin", []pluginSection{{"a", 3, nil}, {"shm", 1, nil}}, nil, []string{"plugin shm: not among"}},
		{"too new", []pluginSection{{"a", 4, nil}}, nil, []string{"plugin a: the image has state format 4, readable are 2 to 3"}},
		{"too old", []pluginSection{{"a", 1, nil}}, nil, []string{"state format 1"}},
		{"twice", []pluginSection{{"a", 3, nil}, {"a", 3, nil}}, nil, []string{"two sections of plugin a"}},
		{"two reasons", []pluginSection{{"a", 9, nil}, {"shm", 1, nil}}, nil, []string{"plugin a", "plugin shm"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := newStage(t, time.Minute, "a", "b")
			err := st.Load(t.Context(), tt.sections)
			if tt.want != nil {
				wantError(t, err, tt.want...)
			} else if err != nil {
				t.Error(err)
			}
			st.wantTape(t, tt.calls...)
			for _, sec := range tt.sections {
				if a := st.actors[sec.Name]; err == nil && a.state != string(sec.Payload) {
					t.Errorf("plugin %s got %q", sec.Name, a.state)
				}
			}
		})
	}
}

// TestLoadAll: the user reads all that is wrong with an image at once.
func TestLoadAll(t *testing.T) {
	st := newStage(t, time.Minute, "a", "b", "c")
	st.actors["a"].script["load"] = fails(errors.New("no such file"))
	st.actors["b"].script["load"] = func(context.Context) error { panic("nil map") }
	err := st.Load(t.Context(), []pluginSection{{"a", 3, nil}, {"b", 3, nil}, {"c", 3, nil}})
	wantError(t, err, "plugin a: load: no such file", "plugin b: load: panic: nil map")
	st.wantTape(t, "a:load", "b:load", "c:load")
}
