// Command tlogread reads a mounted ledger's log with other people's code: golang.org/x/mod/sumdb/tlog, the Merkle tree
// that the Go checksum database's clients use. Only the names of paths and the framing of entry bundles are ours to
// write here (C2SP tlog-tiles); hashes, trees and proofs are theirs.
//
// usage: tlogread -log MOUNT/log <<'EOF'
//
//	SIZE ROOT-IN-HEX
//	...
//
// The lines name tree sizes in rising order with the roots that the ledger's seals claim for them. It checks the root of
// each, that each tree is a prefix of the next, every leaf hash against its entry, and inclusion proofs of a spread of
// entries; then it prints one line of JSON. The first thing that does not fit ends it with status 1.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const height = 8 // tlog-tiles: a tile has 256 hashes, always

// tiles reads tiles of a tree of a given size from the mount.
type tiles struct {
	root string
	seen map[string]int // tiles read, by kind
}

func (t *tiles) Height() int { return height }

func (t *tiles) SaveTiles(list []tlog.Tile, data [][]byte) {}

func (t *tiles) ReadTiles(list []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(list))
	for i, tile := range list {
		read, err := t.read(tile)
		if err != nil {
			return nil, err
		}
		if len(read) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s has %d bytes, not %d", tile.Path(), len(read), tile.W*tlog.HashSize)
		}
		data[i] = read
	}
	return data, nil
}

// read maps a path of the checksum database (tile/8/0/x001/234, tile/8/data/000.p/5) to one of tlog-tiles
// (tile/0/x001/234, tile/entries/000.p/5): the height is fixed there, and the data have another name.
func (t *tiles) read(tile tlog.Tile) ([]byte, error) {
	path := strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", height))
	if strings.HasPrefix(path, "data/") {
		path = "entries/" + strings.TrimPrefix(path, "data/")
	}
	kind := "full"
	if tile.W < 1<<height {
		kind = "partial"
	}
	t.seen[fmt.Sprintf("%s-%s", path[:strings.IndexByte(path, '/')], kind)]++
	return os.ReadFile(filepath.Join(t.root, "tile", path))
}

// bundle gives the entries from n*256 on, width of them.
func (t *tiles) bundle(n int64, width int) ([][]byte, error) {
	tile := tlog.Tile{H: height, L: -1, N: n, W: width}
	data, err := t.read(tile)
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 {
			return nil, fmt.Errorf("%s ends within a length", tile.Path())
		}
		length := int(binary.BigEndian.Uint16(data))
		if length == 0 || len(data) < 2+length {
			return nil, fmt.Errorf("%s: an entry of %d bytes, and %d are left", tile.Path(), length, len(data)-2)
		}
		entries = append(entries, data[2:2+length])
		data = data[2+length:]
	}
	if len(entries) != width {
		return nil, fmt.Errorf("%s has %d entries, not %d", tile.Path(), len(entries), width)
	}
	return entries, nil
}

func main() {
	directory := flag.String("log", "", "directory of the log")
	spread := flag.Int("spread", 97, "prove every n-th entry in each tree")
	flag.Parse()
	trees, err := claimed()
	if err == nil {
		err = check(&tiles{*directory, map[string]int{}}, trees, int64(*spread))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tlogread:", err)
		os.Exit(1)
	}
}

func claimed() ([]tlog.Tree, error) {
	var trees []tlog.Tree
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var tree tlog.Tree
		var root string
		if _, err := fmt.Sscan(lines.Text(), &tree.N, &root); err != nil {
			return nil, fmt.Errorf("%q: %v", lines.Text(), err)
		}
		if n, err := hex.Decode(tree.Hash[:], []byte(root)); err != nil || n != tlog.HashSize {
			return nil, fmt.Errorf("%q is no hash", root)
		}
		trees = append(trees, tree)
	}
	if len(trees) == 0 {
		return nil, fmt.Errorf("no trees on standard input")
	}
	return trees, nil
}

func check(t *tiles, trees []tlog.Tree, spread int64) error {
	newest := trees[len(trees)-1]
	// TileHashReader proves each tile it reads to be part of the tree, so everything below rests on the claimed root.
	reader := tlog.TileHashReader(newest, t)
	if err := checkTrees(trees, reader); err != nil {
		return err
	}
	if err := checkEntries(t, newest.N, reader); err != nil {
		return err
	}
	proofs, err := checkRecords(t, trees, spread)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"trees": len(trees), "entries": newest.N, "proofs": proofs, "tiles": t.seen,
	})
}

func checkTrees(trees []tlog.Tree, reader tlog.HashReader) error {
	newest := trees[len(trees)-1]
	for i, tree := range trees {
		root, err := tlog.TreeHash(tree.N, reader)
		if err != nil {
			return fmt.Errorf("tree of %d entries: %v", tree.N, err)
		}
		if root != tree.Hash {
			return fmt.Errorf("tree of %d entries: the root is %x, the seal says %x", tree.N, root[:], tree.Hash[:])
		}
		next := newest
		if i+1 < len(trees) {
			next = trees[i+1]
		}
		proof, err := tlog.ProveTree(next.N, tree.N, reader)
		if err == nil {
			err = tlog.CheckTree(proof, next.N, next.Hash, tree.N, tree.Hash)
		}
		if err != nil {
			return fmt.Errorf("trees of %d and %d entries: %v", tree.N, next.N, err)
		}
	}
	return nil
}

func checkEntries(t *tiles, size int64, reader tlog.HashReader) error {
	for first := int64(0); first < size; first += 1 << height {
		width := 1 << height
		if size-first < 1<<height {
			width = int(size - first)
		}
		entries, err := t.bundle(first>>height, width)
		if err != nil {
			return err
		}
		indexes := make([]int64, width)
		for i := range indexes {
			indexes[i] = tlog.StoredHashIndex(0, first+int64(i))
		}
		hashes, err := reader.ReadHashes(indexes)
		if err != nil {
			return err
		}
		for i, entry := range entries {
			if tlog.RecordHash(entry) != hashes[i] {
				return fmt.Errorf("entry %d is not what its leaf hash says", first+int64(i))
			}
		}
	}
	return nil
}

// checkRecords reads each tree anew at its own size, so that the tiles that were partial then are read as partial ones.
func checkRecords(t *tiles, trees []tlog.Tree, spread int64) (int, error) {
	proofs := 0
	for _, tree := range trees {
		reader := tlog.TileHashReader(tree, t)
		for n := tree.N - 1; n >= 0; n -= spread {
			entries, err := t.bundle(n>>height, int(n&(1<<height-1))+1)
			if err != nil {
				return 0, err
			}
			proof, err := tlog.ProveRecord(tree.N, n, reader)
			if err == nil {
				err = tlog.CheckRecord(proof, tree.N, tree.Hash, n, tlog.RecordHash(entries[len(entries)-1]))
			}
			if err != nil {
				return 0, fmt.Errorf("entry %d in the tree of %d entries: %v", n, tree.N, err)
			}
			proofs++
		}
	}
	return proofs, nil
}
