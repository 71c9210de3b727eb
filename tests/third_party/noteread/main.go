// Command noteread verifies a ledger's checkpoints and proofs with other people's code: golang.org/x/mod/sumdb/note for
// the signatures, golang.org/x/mod/sumdb/tlog for the trees. Only the lines of the texts are taken apart here (C2SP
// tlog-checkpoint and tlog-proof).
//
// usage:
//
//	noteread -vkey KEY checkpoint FILE
//	noteread -vkey KEY tx PROOF ENTRY
//	noteread -vkey KEY consistency PROOF OLD-CHECKPOINT NEW-CHECKPOINT
//
// It prints the size that was proven. The first thing that does not fit ends it with status 1.
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	vkey := flag.String("vkey", "", "the log's public key")
	flag.Parse()
	size, err := run(*vkey, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "noteread:", err)
		os.Exit(1)
	}
	fmt.Println(size)
}

func run(vkey string, args []string) (int64, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return 0, err
	}
	var files [][]byte
	for _, name := range args[1:] {
		data, err := os.ReadFile(name)
		if err != nil {
			return 0, err
		}
		files = append(files, data)
	}
	switch {
	case args[0] == "checkpoint" && len(files) == 1:
		tree, err := open(files[0], verifier)
		return tree.N, err
	case args[0] == "tx" && len(files) == 2:
		return checkTransaction(files[0], files[1], verifier)
	case args[0] == "consistency" && len(files) == 3:
		return checkConsistency(files[0], files[1], files[2], verifier)
	}
	return 0, fmt.Errorf("cannot do %q", args)
}

func open(data []byte, verifier note.Verifier) (tlog.Tree, error) {
	var tree tlog.Tree
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return tree, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() || lines[3] != "" {
		return tree, fmt.Errorf("not a checkpoint of %s: %q", verifier.Name(), opened.Text)
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

func hashes(lines []string) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, line := range lines {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		found = append(found, hash)
	}
	return found, nil
}

func checkTransaction(proof, entry []byte, verifier note.Verifier) (int64, error) {
	head, checkpoint, found := strings.Cut(string(proof), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" || !strings.HasPrefix(lines[1], "index ") {
		return 0, fmt.Errorf("not a proof: %q", head)
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil {
		return 0, err
	}
	tree, err := open([]byte(checkpoint), verifier)
	if err != nil {
		return 0, err
	}
	path, err := hashes(lines[2:])
	if err != nil {
		return 0, err
	}
	return tree.N, tlog.CheckRecord(path, tree.N, tree.Hash, index, tlog.RecordHash(entry))
}

func checkConsistency(proof, older, newer []byte, verifier note.Verifier) (int64, error) {
	old, err := open(older, verifier)
	if err != nil {
		return 0, err
	}
	tree, err := open(newer, verifier)
	if err != nil {
		return 0, err
	}
	path, err := hashes(strings.Fields(string(proof)))
	if err != nil {
		return 0, err
	}
	return tree.N, tlog.CheckTree(path, tree.N, tree.Hash, old.N, old.Hash)
}
