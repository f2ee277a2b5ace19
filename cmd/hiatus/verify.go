package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hiatus-project/hiatus/core/image"
)

// verifyView is what `verify --json` prints.
type verifyView struct {
	Path  string `json:"path"`
	OK    bool   `json:"ok"`
	Bytes int64  `json:"bytes"` // of memory content read, where it is known
	// Codecs has the sizes by compression, where all is whole.
	Codecs []image.CodecStats `json:"codecs,omitempty"`
	Error  string             `json:"error,omitempty"`
}

func (a *app) verifyCommand() *cobra.Command {
	var asJSON bool
	var generation uint64
	cmd := &cobra.Command{
		Use:   "verify PATH",
		Short: "Read an image whole and compare its checksums",
		Long: `Read a generation whole and compare everything with its checksums. PATH is a
--ckptdir (the newest generation in it), the folder of a generation, or its
manifest.json.

Exit code: 0 the image is whole; 1 it is not, or cannot be read; 2 wrong usage or
configuration.`,
		Example: "  hiatus verify /scratch/ckpt\n  hiatus verify /scratch/ckpt --generation 3",
		Args:    usageArgs(cobra.ExactArgs(1)),
	}
	generationFlag(cmd, &generation, "verify generation `N` (default: the newest)")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = a.start(func(ctx context.Context, args []string) error {
		path, err := image.Resolve(args[0], generation)
		if err != nil {
			return err
		}
		return a.verify(ctx, path, asJSON)
	})
	return cmd
}

func (a *app) verify(ctx context.Context, path string, asJSON bool) error {
	v := verifyView{Path: path}
	bar := newProgress(a.stderr)
	codecs, err := image.Verify(ctx, path, func(done, total int64) {
		v.Bytes = done
		bar.show("verifying", done, total)
	})
	bar.end()
	if asJSON {
		v.Codecs = codecs
		if v.OK = err == nil; err != nil {
			v.Error = err.Error()
		}
		if jerr := a.json(v); jerr != nil {
			return jerr
		}
		return err
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s is whole, %s of memory read%s\n", printable(path), size(v.Bytes), byCodec(codecs))
	return err
}

// byCodec tells how the memory is stored, where anything is compressed.
func byCodec(codecs []image.CodecStats) string {
	var list []string
	compressed := false
	for _, c := range codecs {
		compressed = compressed || c.Codec != image.Raw.String()
		list = append(list, fmt.Sprintf("%s of %s as %s", size(c.Stored), size(c.Bytes), c.Codec))
	}
	if !compressed {
		return ""
	}
	return ": " + strings.Join(list, ", ")
}
