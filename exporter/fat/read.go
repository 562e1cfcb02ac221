package fat

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf16"
)

// ErrFormat is the error for a volume that has no FAT file system, or a damaged
// one.
var ErrFormat = errors.New("not a FAT file system")

// Limits for volumes from strangers.
const (
	maxDirectorySize = 65536 * entrySize // bytes, as the specification has it
	maxDirectories   = 65536             // that one FS opens
	maxExtents       = 65536             // of one file
)

// An FS is a FAT12, FAT16 or FAT32 volume opened for reading. It implements
// fs.FS, fs.ReadDirFS and fs.StatFS, and may be used by several goroutines at
// once.
//
// Names are compared without regard to case. A name that FAT stores in its short
// form only is decoded as ISO 8859-1. Errors name the offset on the volume in
// bytes. A volume whose directories share clusters, as no valid one does, has
// an error in place of the second, so that walking the tree ends.
type FS struct {
	r           io.ReaderAt
	table       int64  // offset in bytes of the file allocation table
	data        int64  // offset in bytes of cluster 2
	clusterSize int64  // bytes
	clusters    uint32 // number
	bits        int    // of an entry in the table
	root        *node
	fixedRoot   struct{ at, size int64 } // bytes; of FAT12 and FAT16

	mu    sync.Mutex
	paths map[uint32]string // of directories, by their first cluster
}

// Open opens a volume. It reads the boot sector only. The error is ErrFormat if
// that is not one of a FAT file system.
func Open(r io.ReaderAt) (*FS, error) {
	b := make([]byte, sectorSize)
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("FAT: byte 0: %w", err)
	}
	le := binary.LittleEndian
	bytesPerSector, sectorsPerCluster := int64(le.Uint16(b[11:])), int64(b[13])
	reserved, tableCount, rootEntries := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	total := cmp.Or(int64(le.Uint16(b[19:])), int64(le.Uint32(b[32:])))
	tableSectors := cmp.Or(int64(le.Uint16(b[22:])), int64(le.Uint32(b[36:])))
	if b[510] != 0x55 || b[511] != 0xaa || bytesPerSector < sectorSize || bytesPerSector > 4096 ||
		sectorsPerCluster == 0 || tableCount == 0 || tableSectors == 0 {
		return nil, fmt.Errorf("%w: the boot sector is invalid", ErrFormat)
	}
	rootSectors := (rootEntries*entrySize + bytesPerSector - 1) / bytesPerSector
	rootStart := reserved + tableCount*tableSectors
	clusters := (total - rootStart - rootSectors) / sectorsPerCluster
	if clusters <= 0 || clusters > maxClusters {
		return nil, fmt.Errorf("%w: the boot sector describes %d clusters", ErrFormat, clusters)
	}
	f := &FS{
		r:           r,
		table:       reserved * bytesPerSector,
		data:        (rootStart + rootSectors) * bytesPerSector,
		clusterSize: sectorsPerCluster * bytesPerSector,
		clusters:    uint32(clusters),
		root:        &node{name: ".", directory: true},
		paths:       map[uint32]string{},
	}
	// The number of clusters alone decides about the variant.
	switch {
	case clusters < 4085:
		f.bits = 12
	case clusters < 65525:
		f.bits = 16
	default:
		f.bits = 32
		f.root.start = le.Uint32(b[44:])
	}
	if f.bits != 32 {
		f.fixedRoot.at, f.fixedRoot.size = rootStart*bytesPerSector, rootEntries*entrySize
	} else if !f.valid(f.root.start) {
		return nil, fmt.Errorf("%w: the root directory is in cluster %d of %d", ErrFormat, f.root.start, clusters)
	}
	f.paths[f.root.start] = "."
	return f, nil
}

func (f *FS) valid(cluster uint32) bool {
	return cluster >= firstCluster && cluster < f.clusters+firstCluster
}

// Free returns the number of bytes in clusters that no file uses. It reads the
// file allocation table.
func (f *FS) Free() (int64, error) {
	const chunk = 3 << 10 // clusters whose entries are whole bytes in all variants
	var free int64
	for first := int64(0); first < int64(f.clusters)+firstCluster; first += chunk {
		count := min(chunk, int64(f.clusters)+firstCluster-first)
		table := make([]byte, (count*int64(f.bits)+7)/8+4)
		if err := f.readFull(table[:len(table)-4], f.table+first*int64(f.bits)/8); err != nil {
			return 0, err
		}
		for n := range count {
			bit := n * int64(f.bits)
			if first+n >= firstCluster && f.entry(table[bit/8:], bit) == 0 {
				free++
			}
		}
	}
	return free * f.clusterSize, nil
}

// entry returns the entry of the file allocation table at the start of b. The bit
// is its position in the table.
func (f *FS) entry(b []byte, bit int64) uint32 {
	return binary.LittleEndian.Uint32(b) >> (bit % 8) & (1<<min(f.bits, 28) - 1)
}

// at returns the offset of a cluster in bytes.
func (f *FS) at(cluster uint32) int64 {
	return f.data + int64(cluster-firstCluster)*f.clusterSize
}

// Open opens a file or directory. Files implement io.ReaderAt and io.Seeker.
func (f *FS) Open(name string) (fs.File, error) {
	n, err := f.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if n.directory {
		entries, err := f.ReadDir(name)
		if err != nil {
			return nil, err
		}
		return &openDirectory{node: n, entries: entries}, nil
	}
	content, err := f.content(n)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &openFile{SectionReader: content, node: n}, nil
}

// Content returns the content of a file. It fails with fs.ErrNotExist for a
// missing file and with fs.ErrInvalid for a directory.
func (f *FS) Content(name string) (*io.SectionReader, error) {
	n, err := f.lookup("open", name)
	if err != nil {
		return nil, err
	}
	if n.directory {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	content, err := f.content(n)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return content, nil
}

// Overwrite writes bytes of a file, which it does not extend, at an offset. The
// writer is for the volume.
func (f *FS) Overwrite(w io.WriterAt, name string, p []byte, offset int64) error {
	fail := func(err error) error { return &fs.PathError{Op: "write", Path: name, Err: err} }
	n, err := f.lookup("write", name)
	if err != nil {
		return err
	}
	if n.directory || offset < 0 || int64(len(p)) > n.size-offset {
		return fail(fs.ErrInvalid)
	}
	e, err := f.extents(n)
	if err != nil {
		return fail(err)
	}
	for i, x := range e.list {
		end := n.size
		if i+1 < len(e.list) {
			end = e.list[i+1].inFile
		}
		from, to := max(x.inFile, offset), min(end, offset+int64(len(p)))
		if from >= to {
			continue
		}
		if _, err := w.WriteAt(p[from-offset:to-offset], x.at+from-x.inFile); err != nil {
			return fail(err)
		}
	}
	return nil
}

// Position returns the offset in a file of the byte at an offset on the volume,
// and reports whether the file has that byte.
func (f *FS) Position(name string, onVolume int64) (inFile int64, ok bool, err error) {
	n, err := f.lookup("open", name)
	if err != nil {
		return 0, false, err
	}
	if n.directory {
		return 0, false, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	e, err := f.extents(n)
	if err != nil {
		return 0, false, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	for i, x := range e.list {
		end := n.size
		if i+1 < len(e.list) {
			end = e.list[i+1].inFile
		}
		if inFile := x.inFile + onVolume - x.at; inFile >= x.inFile && inFile < end {
			return inFile, true, nil
		}
	}
	return 0, false, nil
}

// Stat describes a file or directory.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	n, err := f.lookup("stat", name)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// ReadDir returns the entries of a directory, sorted by name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.lookup("readdir", name)
	if err != nil {
		return nil, err
	}
	if !n.directory {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("not a directory")}
	}
	nodes, err := f.readDirectory(n)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	slices.SortStableFunc(nodes, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	entries := make([]fs.DirEntry, len(nodes))
	for i, n := range nodes {
		entries[i] = n
	}
	return entries, nil
}

// lookup finds a file or directory by its path.
func (f *FS) lookup(op, name string) (*node, error) {
	fail := func(err error) (*node, error) { return nil, &fs.PathError{Op: op, Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	at, realPath := f.root, "."
	if name == "." {
		return at, nil
	}
	for element := range strings.SplitSeq(name, "/") {
		if !at.directory {
			return fail(fs.ErrNotExist)
		}
		nodes, err := f.readDirectory(at)
		if err != nil {
			return fail(err)
		}
		i := slices.IndexFunc(nodes, func(n *node) bool { return strings.EqualFold(n.name, element) })
		if i < 0 {
			return fail(fs.ErrNotExist)
		}
		at, realPath = nodes[i], path.Join(realPath, nodes[i].name)
		if at.directory {
			if err := f.claim(at, realPath); err != nil {
				return fail(err)
			}
		}
	}
	return at, nil
}

// claim notes the path of a directory. It fails if another one starts in the
// same cluster.
func (f *FS) claim(n *node, path string) error {
	if !f.valid(n.start) {
		return fmt.Errorf("byte %d: %w: a directory starts in cluster %d of %d", n.at, ErrFormat, n.start, f.clusters)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch first, claimed := f.paths[n.start]; {
	case claimed && first != path:
		return fmt.Errorf("byte %d: %w: the directories %q and %q share cluster %d", n.at, ErrFormat, first, path, n.start)
	case !claimed && len(f.paths) == maxDirectories:
		return fmt.Errorf("byte %d: there are more than %d directories", n.at, maxDirectories)
	}
	f.paths[n.start] = path
	return nil
}

// readDirectory returns the entries of a directory in their order on the volume,
// without "." and "..", volume labels and deleted files.
func (f *FS) readDirectory(d *node) ([]*node, error) {
	var p directoryParser
	if d == f.root && f.bits != 32 {
		b := make([]byte, f.fixedRoot.size)
		if err := f.readFull(b, f.fixedRoot.at); err != nil {
			return nil, err
		}
		_, err := p.parse(b, f.fixedRoot.at)
		return p.nodes, err
	}
	b := make([]byte, f.clusterSize)
	chain := f.chain(d.start)
	for size := int64(0); chain.cluster != 0; size += f.clusterSize {
		if size >= maxDirectorySize {
			return nil, fmt.Errorf("byte %d: %w: a directory has more than %d entries", f.at(d.start), ErrFormat, maxDirectorySize/entrySize)
		}
		if err := f.readFull(b, f.at(chain.cluster)); err != nil {
			return nil, err
		}
		if more, err := p.parse(b, f.at(chain.cluster)); err != nil || !more {
			return p.nodes, err
		}
		if err := chain.next(); err != nil {
			return nil, err
		}
	}
	return p.nodes, nil
}

func (f *FS) readFull(b []byte, at int64) error {
	n, err := f.r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("byte %d: %w", at+int64(n), err)
}

// directoryParser collects the entries of a directory.
type directoryParser struct {
	nodes []*node

	long     []uint16 // pieces of a long name, the last piece first
	sum      byte     // of the short name that it belongs to
	expected byte     // number of the next piece; 0 for none
}

// parse reads entries. It returns false at the end of the directory. The offset
// of the entries is for errors.
func (p *directoryParser) parse(entries []byte, at int64) (more bool, err error) {
	const deleted = 0xe5
	for ; len(entries) >= entrySize; entries, at = entries[entrySize:], at+entrySize {
		e := entries[:entrySize]
		switch {
		case e[0] == 0:
			return false, nil
		case e[0] == deleted:
			p.expected, p.long = 0, nil
			continue
		case e[11]&0x3f == attrLongName:
			p.addPiece(e)
			continue
		case e[11]&attrVolume != 0:
			p.expected, p.long = 0, nil
			continue
		}
		name := p.longName([11]byte(e))
		if name == "" {
			name = decodeShortName(e)
		}
		p.expected, p.long = 0, nil
		if name == "." || name == ".." {
			continue
		}
		if !validName(name) {
			return false, fmt.Errorf("byte %d: %w: a file has the name %q", at, ErrFormat, name)
		}
		le := binary.LittleEndian
		n := &node{
			name: name, directory: e[11]&attrDirectory != 0, at: at,
			start: uint32(le.Uint16(e[20:]))<<16 | uint32(le.Uint16(e[26:])),
			time:  decodeTime(le.Uint16(e[24:]), le.Uint16(e[22:])),
		}
		if !n.directory {
			n.size = int64(le.Uint32(e[28:]))
		}
		p.nodes = append(p.nodes, n)
	}
	return true, nil
}

// addPiece reads an entry of a long name. A piece that does not continue the one
// before makes the name invalid, and the file has its short name then.
func (p *directoryParser) addPiece(e []byte) {
	number, first := e[0]&^longNameLast, e[0]&longNameLast != 0
	if first {
		p.long, p.sum, p.expected = nil, e[13], number
	}
	if number == 0 || number != p.expected || e[13] != p.sum || number > (longNameMax+longNamePiece-1)/longNamePiece {
		p.long, p.expected = nil, 0
		return
	}
	piece := make([]uint16, longNamePiece)
	for i := range piece {
		piece[i] = binary.LittleEndian.Uint16(e[longNameOffset(i):])
	}
	p.long = append(piece, p.long...)
	if p.expected--; p.expected == 0 {
		p.expected = complete
	}
}

// complete is directoryParser.expected after the last piece of a long name.
const complete = 0xff

// longName returns the collected long name if it belongs to the short one, else
// "".
func (p *directoryParser) longName(short [11]byte) string {
	if p.expected != complete || p.sum != shortNameSum(short) {
		return ""
	}
	units := p.long
	if end := slices.Index(units, 0); end >= 0 {
		units = units[:end]
	}
	if name := string(utf16.Decode(units)); validName(name) {
		return name
	}
	return ""
}

func validName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '/' })
}

// decodeShortName returns the name in an entry, in lower case where the entry
// says so (a bit each for base and extension, as Windows NT writes them).
func decodeShortName(e []byte) string {
	const lowerBase, lowerExt = 0x08, 0x10
	text := func(b []byte, lower bool) string {
		var s strings.Builder
		for _, c := range b {
			s.WriteRune(rune(c))
		}
		trimmed := strings.TrimRight(s.String(), " ")
		if lower {
			return strings.ToLower(trimmed)
		}
		return trimmed
	}
	base := slices.Clone(e[:8])
	if base[0] == 0x05 { // stands for 0xe5, which marks deleted files
		base[0] = 0xe5
	}
	name := text(base, e[12]&lowerBase != 0)
	if ext := text(e[8:11], e[12]&lowerExt != 0); ext != "" {
		name += "." + ext
	}
	return name
}

func decodeTime(date, clock uint16) time.Time {
	return time.Date(1980+int(date>>9), time.Month(date>>5&15), int(date&31), int(clock>>11), int(clock>>5&63), int(clock&31)*2, 0, time.UTC)
}

// clusterChain follows the clusters of a file in the file allocation table.
type clusterChain struct {
	f       *FS
	cluster uint32 // 0 after the last
	page    []byte // a piece of the table
	pageAt  int64  // its offset in the table in bytes
}

func (f *FS) chain(start uint32) *clusterChain {
	c := &clusterChain{f: f}
	if f.valid(start) {
		c.cluster = start
	}
	return c
}

// next moves on. An entry that points out of the volume ends the chain.
func (c *clusterChain) next() error {
	const pageSize = 4096
	bit := int64(c.cluster) * int64(c.f.bits)
	at := bit / 8
	if at < c.pageAt || at+4 > c.pageAt+int64(len(c.page)) {
		if c.page == nil {
			c.page = make([]byte, pageSize)
		}
		c.page, c.pageAt = c.page[:cap(c.page)], at
		n, err := c.f.r.ReadAt(c.page, c.f.table+at)
		if n < 4 {
			return fmt.Errorf("byte %d: read the file allocation table: %w", c.f.table+at, cmp.Or(err, io.ErrUnexpectedEOF))
		}
		c.page = c.page[:n]
	}
	entry := c.f.entry(c.page[at-c.pageAt:], bit)
	if !c.f.valid(entry) {
		entry = 0
	}
	c.cluster = entry
	return nil
}

// content returns the content of a file.
func (f *FS) content(n *node) (*io.SectionReader, error) {
	e, err := f.extents(n)
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(e, 0, n.size), nil
}

// extents returns where the content of a file is.
func (f *FS) extents(n *node) (extents, error) {
	e := extents{r: f.r}
	chain := f.chain(n.start)
	for ; e.size < n.size; e.size += f.clusterSize {
		if chain.cluster == 0 {
			return extents{}, fmt.Errorf("byte %d: %w: %q has %d bytes, but its clusters end after %d", n.at, ErrFormat, n.name, n.size, e.size)
		}
		if at := f.at(chain.cluster); !e.continues(at) {
			if len(e.list) == maxExtents {
				return extents{}, fmt.Errorf("byte %d: %q is in more than %d pieces", n.at, n.name, maxExtents)
			}
			e.list = append(e.list, extent{inFile: e.size, at: at})
		}
		if err := chain.next(); err != nil {
			return extents{}, err
		}
	}
	return e, nil
}

// extents is a file in the runs of clusters that hold it.
type extents struct {
	r    io.ReaderAt
	list []extent
	size int64 // bytes
}

// extent is a run of clusters: its offsets in the file and on the volume in
// bytes.
type extent struct{ inFile, at int64 }

// continues reports whether a cluster at an offset on the volume follows the
// last extent.
func (e extents) continues(at int64) bool {
	last := len(e.list) - 1
	return last >= 0 && e.list[last].at+e.size-e.list[last].inFile == at
}

// ReadAt implements io.ReaderAt.
func (e extents) ReadAt(p []byte, at int64) (n int, err error) {
	for n < len(p) && at < e.size {
		i, found := slices.BinarySearchFunc(e.list, at, func(x extent, at int64) int { return cmp.Compare(x.inFile, at) })
		if !found {
			i--
		}
		end := e.size
		if i+1 < len(e.list) {
			end = e.list[i+1].inFile
		}
		got, err := e.r.ReadAt(p[n:n+int(min(int64(len(p)-n), end-at))], e.list[i].at+at-e.list[i].inFile)
		n, at = n+got, at+int64(got)
		if err != nil && n < len(p) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF // the volume is truncated
			}
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// node is a file or directory. It implements fs.DirEntry and fs.FileInfo.
type node struct {
	name      string
	directory bool
	start     uint32 // first cluster
	size      int64  // bytes
	time      time.Time
	at        int64 // offset of its entry on the volume in bytes
}

func (n *node) Name() string               { return n.name }
func (n *node) Size() int64                { return n.size }
func (n *node) ModTime() time.Time         { return n.time }
func (n *node) IsDir() bool                { return n.directory }
func (n *node) Sys() any                   { return nil }
func (n *node) Type() fs.FileMode          { return n.Mode().Type() }
func (n *node) Info() (fs.FileInfo, error) { return n, nil }
func (n *node) String() string             { return fs.FormatFileInfo(n) }

// Mode returns the permissions 0755 for directories and 0644 for files, since
// FAT has none.
func (n *node) Mode() fs.FileMode {
	if n.directory {
		return fs.ModeDir | 0o755
	}
	return 0o644
}

type openFile struct {
	*io.SectionReader
	node *node
}

func (o *openFile) Stat() (fs.FileInfo, error) { return o.node, nil }
func (o *openFile) Close() error               { return nil }

type openDirectory struct {
	node    *node
	entries []fs.DirEntry // not yet returned
}

func (o *openDirectory) Stat() (fs.FileInfo, error) { return o.node, nil }
func (o *openDirectory) Close() error               { return nil }

func (o *openDirectory) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: o.node.name, Err: errors.New("is a directory")}
}

// ReadDir implements fs.ReadDirFile.
func (o *openDirectory) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		n = len(o.entries)
	} else if len(o.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(o.entries))
	entries := o.entries[:n:n]
	o.entries = o.entries[n:]
	return entries, nil
}
