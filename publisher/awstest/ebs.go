package awstest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// EBS direct APIs: the model of github.com/aws/aws-sdk-go-v2/service/ebs,
// version 2019-11-02, protocol restJson1.

func ebsService() *service {
	return &service{
		route: routeEBS,
		limit: BlockSize,
		operations: map[string]func(*call) (any, error){
			"StartSnapshot":      (*call).startSnapshot,
			"PutSnapshotBlock":   (*call).putSnapshotBlock,
			"CompleteSnapshot":   (*call).completeSnapshot,
			"ListSnapshotBlocks": (*call).listSnapshotBlocks,
			"ListChangedBlocks":  (*call).listChangedBlocks,
			"GetSnapshotBlock":   (*call).getSnapshotBlock,
		},
		fail: func(c *call, e *apiError) *answer {
			a := encodeJSON(e.status, "application/json", struct{ Message, Reason string }{e.message, e.reason})
			a.header["X-Amzn-Errortype"] = e.code
			return a
		},
		throttle:    *newError("ThrottlingException", "rate exceeded"),
		internal:    *newError("InternalServerException", "the service failed").withStatus(http.StatusInternalServerError),
		denied:      *newError("AccessDeniedException", "").withStatus(http.StatusForbidden).withReason("UNAUTHORIZED_ACCOUNT"),
		credentials: *newError("UnrecognizedClientException", "the security token included in the request is invalid").withStatus(http.StatusForbidden),
		expired:     *newError("ExpiredTokenException", "the security token included in the request is expired").withStatus(http.StatusForbidden),
	}
}

// routeEBS finds the operation by method and path.
func routeEBS(c *call) error {
	parts := strings.Split(strings.TrimPrefix(c.http.URL.Path, "/"), "/")
	match := func(method string, pattern ...string) bool {
		if c.http.Method != method || len(parts) != len(pattern) {
			return false
		}
		for i, p := range pattern {
			if p != "" && p != parts[i] {
				return false
			}
		}
		return true
	}
	known := []string{}
	c.Resource = strings.Join(parts[1:], "/")
	switch {
	case match("POST", "snapshots"):
		c.Operation = "StartSnapshot"
	case match("POST", "snapshots", "completion", ""):
		c.Operation, c.Resource = "CompleteSnapshot", parts[2]
	case match("PUT", "snapshots", "", "blocks", ""):
		c.Operation = "PutSnapshotBlock"
	case match("GET", "snapshots", "", "blocks", ""):
		c.Operation, known = "GetSnapshotBlock", []string{"blockToken"}
	case match("GET", "snapshots", "", "blocks"):
		c.Operation, known = "ListSnapshotBlocks", []string{"pageToken", "maxResults", "startingBlockIndex"}
	case match("GET", "snapshots", "", "changedblocks"):
		c.Operation, known = "ListChangedBlocks", []string{"firstSnapshotId", "pageToken", "maxResults", "startingBlockIndex"}
	default:
		return violation("UnknownOperationException", "EBS direct does not have %s %s", c.http.Method, c.http.URL.Path).withStatus(http.StatusNotFound)
	}
	for name := range c.http.URL.Query() {
		if !slices.Contains(known, name) {
			return invalid("%s does not have the parameter %q", c.Operation, name)
		}
	}
	return nil
}

// invalid returns the error for an invalid parameter.
func invalid(format string, args ...any) *apiError {
	return violation("ValidationException", format, args...).withReason("INVALID_PARAMETER_VALUE")
}

// find returns a snapshot that exists for the client. The caller holds s.mu.
func (c *call) find(id string) (*snapshot, error) {
	p := c.region(c.Region).snapshots[id]
	if p == nil || c.now().Sub(p.started) < c.knobs.Grace {
		return nil, newError("ResourceNotFoundException", "the snapshot '%s' does not exist", id).
			withStatus(http.StatusNotFound).withReason("SNAPSHOT_NOT_FOUND")
	}
	return p, nil
}

// readable returns a completed snapshot. The caller holds s.mu.
func (c *call) readable(id string) (*snapshot, error) {
	p, err := c.find(id)
	if err == nil && p.state(c.now()) != "completed" {
		err = violation("ValidationException", "the snapshot '%s' is %s, not completed", id, p.state(c.now())).withReason("INVALID_SNAPSHOT_ID")
	}
	if err == nil && p.tier(c.now()) == "archive" {
		err = newError("ValidationException", "the snapshot '%s' is archived", id).withReason("INVALID_SNAPSHOT_ID")
	}
	return p, err
}

func (c *call) startSnapshot() (any, error) {
	var in struct {
		VolumeSize                                            int64
		ParentSnapshotId, Description, ClientToken, KmsKeyArn string
		Encrypted                                             *bool
		Timeout                                               *int64
		Tags                                                  []tag
	}
	if err := decodeJSON(c.body, &in); err != nil {
		return nil, err
	}
	if in.VolumeSize < 1 || in.VolumeSize > 65536 {
		return nil, violation("ValidationException", "VolumeSize is %d GiB, not 1 to 65536", in.VolumeSize).withReason("INVALID_VOLUME_SIZE")
	}
	timeout := time.Hour
	if in.Timeout != nil {
		if *in.Timeout < 10 || *in.Timeout > 4320 {
			return nil, invalid("Timeout is %d minutes, not 10 to 4320", *in.Timeout)
		}
		timeout = time.Duration(*in.Timeout) * time.Minute
	}
	if len(in.Description) > 255 || len(in.ClientToken) > 255 {
		return nil, invalid("Description and ClientToken have at most 255 characters")
	}
	list, err := newTags(in.Tags)
	if err != nil {
		return nil, violation("ValidationException", "%v", err).withReason("INVALID_TAG")
	}
	if in.ParentSnapshotId != "" && (in.Encrypted != nil || in.KmsKeyArn != "") {
		return nil, invalid("ParentSnapshotId excludes Encrypted and KmsKeyArn")
	}
	encrypted, key, err := c.encryption(in.Encrypted != nil && *in.Encrypted, in.KmsKeyArn)
	if err != nil {
		return nil, err
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	parameters := fmt.Sprint(in.VolumeSize, in.ParentSnapshotId, in.Description, in.KmsKeyArn, in.Encrypted != nil && *in.Encrypted, timeout, list)
	id, mismatch := r.once(c.Operation, in.ClientToken, parameters)
	if mismatch {
		return nil, violation("ConflictException", "the client token %q was used with different parameters", in.ClientToken).withStatus(http.StatusConflict)
	}
	p := r.snapshots[id]
	switch {
	case id != "" && p == nil:
		return nil, newError("ResourceNotFoundException", "the snapshot '%s' of the client token was deleted", id).
			withStatus(http.StatusNotFound).withReason("SNAPSHOT_NOT_FOUND")
	case p == nil:
		var parent *snapshot
		if in.ParentSnapshotId != "" {
			if parent, err = c.readable(in.ParentSnapshotId); err != nil {
				return nil, err
			}
			if parent.size > in.VolumeSize {
				return nil, violation("ValidationException", "VolumeSize is %d GiB, less than the %d GiB of the parent", in.VolumeSize, parent.size).withReason("INVALID_VOLUME_SIZE")
			}
			if c.knobs.EncryptByDefault && !parent.encrypted {
				return nil, newError("ValidationException", "the account encrypts by default, but the parent '%s' is not encrypted", in.ParentSnapshotId).withReason("INVALID_PARAMETER_VALUE")
			}
		}
		pending, quota := 0, c.knobs.PendingSnapshots
		if quota == 0 {
			quota = 100
		}
		for _, other := range r.snapshots {
			if other.state(c.now()) == "pending" {
				pending++
			}
		}
		if pending >= quota {
			return nil, newError("ServiceQuotaExceededException", "there are %d pending snapshots already", pending).
				withStatus(http.StatusPaymentRequired).withReason("DEPENDENCY_SERVICE_QUOTA_EXCEEDED")
		}
		p = c.newSnapshot(r, parent)
		if parent == nil {
			p.encrypted, p.kmsKey = encrypted, key
			if encrypted {
				p.noise = p.id
			}
		}
		p.parent, p.size, p.description, p.tags, p.timeout = in.ParentSnapshotId, in.VolumeSize, in.Description, list, timeout
		r.remember(c.Operation, in.ClientToken, parameters, p.id)
	}

	out := map[string]any{
		"SnapshotId": p.id, "OwnerId": Account, "Status": p.state(c.now()), "StartTime": epoch(p.started),
		"VolumeSize": p.size, "BlockSize": BlockSize, "Tags": p.tags, "SseType": "none",
	}
	if p.description != "" {
		out["Description"] = p.description
	}
	if p.parent != "" {
		out["ParentSnapshotId"] = p.parent
	}
	if p.encrypted {
		out["KmsKeyArn"], out["SseType"] = p.kmsKey, "sse-kms"
	}
	return encodeJSON(http.StatusCreated, "application/json", out), nil
}

func epoch(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// header returns a required header, which must have one of the values if there
// are any.
func (c *call) header(name string, values ...string) (string, error) {
	v := c.http.Header.Get(name)
	if v == "" {
		return "", invalid("header %s is missing", name)
	}
	if len(values) > 0 && !slices.Contains(values, v) {
		return "", invalid("header %s is %q, not %s", name, v, strings.Join(values, " or "))
	}
	return v, nil
}

func (c *call) putSnapshotBlock() (any, error) {
	id, _, _ := strings.Cut(c.Resource, "/")
	number, err := strconv.ParseInt(c.Resource[strings.LastIndex(c.Resource, "/")+1:], 10, 32)
	if err != nil {
		return nil, violation("ValidationException", "block index: %v", err).withReason("INVALID_BLOCK")
	}
	index := int32(number)
	if _, err = c.header("x-amz-Data-Length", strconv.Itoa(BlockSize)); err != nil {
		return nil, err
	}
	if _, err = c.header("x-amz-Checksum-Algorithm", "SHA256"); err != nil {
		return nil, err
	}
	checksum, err := c.header("x-amz-Checksum")
	if err != nil {
		return nil, err
	}
	if progress := c.http.Header.Get("x-amz-Progress"); progress != "" {
		if n, err := strconv.Atoi(progress); err != nil || n < 0 || n > 100 {
			return nil, invalid("header x-amz-Progress is %q, not 0 to 100", progress)
		}
	}
	if len(c.body) != BlockSize {
		return nil, violation("ValidationException", "the block has %d bytes, not %d", len(c.body), BlockSize).withReason("INVALID_BLOCK")
	}
	sum := sha256.Sum256(c.body)
	if own := base64.StdEncoding.EncodeToString(sum[:]); own != checksum {
		return nil, invalid("the block's SHA-256 is %s, not %s", own, checksum)
	}

	if err := c.beginBlock(id, index, sum); err != nil {
		return nil, err
	}
	err = c.blocks.add(sum, c.body)
	if err := c.endBlock(id, index, sum, err); err != nil {
		return nil, err
	}
	a := encodeJSON(http.StatusCreated, "application/json", struct{}{})
	a.header["x-amz-Checksum"], a.header["x-amz-Checksum-Algorithm"] = checksum, "SHA256"
	return a, nil
}

// beginBlock checks whether the block may be written now.
func (c *call) beginBlock(id string, index int32, sum digest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.writable(id)
	if err != nil {
		return err
	}
	if !p.inside(int64(index)) {
		return violation("ValidationException", "block %d is outside the volume of %d blocks", index, p.count()).withReason("INVALID_BLOCK")
	}
	if other, ok := p.writing[index]; ok && other.sum != sum {
		return newError("ValidationException", "block %d is being written by another request", index).withReason("CONFLICTING_BLOCK_UPDATE")
	}
	if rate := c.knobs.PutRate; rate > 0 {
		now := time.Now()
		if p.allowedAt.IsZero() {
			p.allowed = rate
		} else {
			p.allowed = min(rate, p.allowed+rate*now.Sub(p.allowedAt).Seconds())
		}
		p.allowedAt = now
		if p.allowed < 1 {
			return newError("RequestThrottledException", "snapshot %s accepts %g blocks per second", id, rate).withReason("RESOURCE_LEVEL_THROTTLE")
		}
		p.allowed--
	}
	p.writing[index] = blockWrite{sum, c.http.Context()}
	return nil
}

// endBlock adds the block to its snapshot, if the snapshot still accepts
// blocks.
func (c *call) endBlock(id string, index int32, sum digest, stored error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.writable(id)
	if p != nil {
		delete(p.writing, index)
	}
	if stored != nil {
		return fmt.Errorf("store a block: %w", stored)
	}
	if err != nil {
		c.blocks.release(sum)
		return err
	}
	if former, ok := p.blocks[index]; ok {
		c.blocks.release(former)
	}
	p.blocks[index] = sum
	p.lastWrite = c.now()
	if p.written[index] > 0 {
		p.rewritten++
	}
	acknowledged := 1
	if c.Fault.lost() || c.http.Context().Err() != nil {
		acknowledged = 0 // the client may write it again
	}
	p.written[index] += acknowledged
	return nil
}

// writable returns a snapshot that accepts blocks. The caller holds s.mu.
func (c *call) writable(id string) (*snapshot, error) {
	p, err := c.find(id)
	if err != nil {
		return nil, err
	}
	if p.state(c.now()) == "error" {
		return p, newError("ValidationException", "the snapshot '%s' is in the state error: %s", id, p.failed).withReason("WRITE_REQUEST_TIMEOUT")
	}
	if !p.completed.IsZero() {
		return p, violation("ValidationException", "the snapshot '%s' is already completed", id).withReason("INVALID_SNAPSHOT_ID")
	}
	return p, nil
}

func (c *call) completeSnapshot() (any, error) {
	text, err := c.header("x-amz-ChangedBlocksCount")
	if err != nil {
		return nil, err
	}
	count, err := strconv.Atoi(text)
	if err != nil {
		return nil, invalid("header x-amz-ChangedBlocksCount: %v", err)
	}
	if len(bytes.TrimSpace(c.body)) > 0 && string(bytes.TrimSpace(c.body)) != "{}" {
		return nil, invalid("CompleteSnapshot does not have a body")
	}
	checksum := c.http.Header.Get("x-amz-Checksum")
	if checksum != "" {
		if _, err := c.header("x-amz-Checksum-Algorithm", "SHA256"); err != nil {
			return nil, err
		}
		if _, err := c.header("x-amz-Checksum-Aggregation-Method", "LINEAR"); err != nil {
			return nil, err
		}
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.find(c.Resource)
	if err != nil {
		return nil, err
	}
	if p.state(c.now()) == "error" {
		return nil, newError("ValidationException", "the snapshot '%s' is in the state error: %s", p.id, p.failed).withReason("WRITE_REQUEST_TIMEOUT")
	}
	// The count and the checksum cover the blocks that were written, each once.
	// The client may repeat the request if its answer was lost.
	if count != len(p.written) {
		return nil, invalid("ChangedBlocksCount is %d, but %d blocks were written", count, len(p.written))
	}
	if checksum != "" {
		all := sha256.New()
		for _, index := range p.indexes() {
			if _, ok := p.written[index]; ok {
				sum := p.blocks[index]
				all.Write(sum[:])
			}
		}
		if own := base64.StdEncoding.EncodeToString(all.Sum(nil)); own != checksum {
			return nil, invalid("the linear checksum of the written blocks is %s, not %s", own, checksum)
		}
	}
	for index, f := range p.writing {
		if f.client.Err() == nil {
			c.violate("block %d is being written while the snapshot is completed", index)
		}
	}
	if p.completed.IsZero() {
		p.completed = c.now().Add(c.knobs.Settle)
	}
	return encodeJSON(http.StatusAccepted, "application/json", map[string]string{"Status": p.state(c.now())}), nil
}

// A page is a part of a list: where it starts and its maximum length.
type page struct {
	start int32
	max   int
}

// page reads the parameters of a list. The subject is part of its tokens, so
// that tokens of other lists are rejected. The caller holds s.mu.
func (c *call) page(subject string) (page, error) {
	q := c.http.URL.Query()
	pg := page{max: 10000}
	if v := q.Get("maxResults"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 100 || n > 10000 {
			return pg, invalid("maxResults is %q, not 100 to 10000", v)
		}
		pg.max = n
	}
	if v := q.Get("pageToken"); v != "" {
		raw, err := base64.StdEncoding.DecodeString(v)
		number, ok := strings.CutPrefix(string(raw), subject+" ")
		n, err2 := strconv.ParseInt(number, 10, 32)
		if err != nil || err2 != nil || !ok {
			return pg, violation("ValidationException", "the page token is not from this list").withReason("INVALID_PAGE_TOKEN")
		}
		pg.start = int32(n)
	} else if v := q.Get("startingBlockIndex"); v != "" {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil || n < 0 {
			return pg, invalid("startingBlockIndex is %q, not a number of at least 0", v)
		}
		pg.start = int32(n)
	}
	if c.knobs.Flap > 0 { // documented: a page may be short or empty although more follow
		r := c.region(c.Region)
		r.describes++
		switch r.describes % 3 {
		case 1:
			pg.max = 0
		case 2:
			pg.max = min(pg.max, 7)
		}
	}
	return pg, nil
}

// cut returns the part of a list that is on the page, and the token of the next
// page.
func (pg page) cut(indexes []int32, subject string) ([]int32, string) {
	from, _ := slices.BinarySearch(indexes, pg.start)
	indexes = indexes[from:]
	if len(indexes) <= pg.max {
		return indexes, ""
	}
	return indexes[:pg.max], base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s %d", subject, indexes[pg.max]))
}

func (p *snapshot) token(index int32) string {
	sum := p.blocks[index]
	token := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%x", p.id, index, sum))
	return base64.StdEncoding.EncodeToString(token[:])
}

// A listing is the answer of ListSnapshotBlocks and ListChangedBlocks.
type listing struct {
	Blocks        []block `json:",omitempty"`
	ChangedBlocks []block `json:",omitempty"`
	ExpiryTime    float64
	VolumeSize    int64
	BlockSize     int
	NextToken     string `json:",omitempty"`
}

type block struct {
	BlockIndex       int32
	BlockToken       string `json:",omitempty"`
	FirstBlockToken  string `json:",omitempty"`
	SecondBlockToken string `json:",omitempty"`
}

func (c *call) listSnapshotBlocks() (any, error) {
	id, _, _ := strings.Cut(c.Resource, "/")
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.readable(id)
	if err != nil {
		return nil, err
	}
	pg, err := c.page(p.id)
	if err != nil {
		return nil, err
	}
	out := listing{ExpiryTime: epoch(c.now().AddDate(0, 0, 7)), VolumeSize: p.size, BlockSize: BlockSize}
	var indexes []int32
	indexes, out.NextToken = pg.cut(p.indexes(), p.id)
	for _, index := range indexes {
		out.Blocks = append(out.Blocks, block{BlockIndex: index, BlockToken: p.token(index)})
	}
	return encodeJSON(http.StatusOK, "application/json", out), nil
}

func (c *call) listChangedBlocks() (any, error) {
	id, _, _ := strings.Cut(c.Resource, "/")
	first := c.http.URL.Query().Get("firstSnapshotId")
	c.mu.Lock()
	defer c.mu.Unlock()
	second, err := c.readable(id)
	if err != nil {
		return nil, err
	}
	old := &snapshot{} // default: all blocks have changed
	if first != "" {
		if old, err = c.readable(first); err != nil {
			return nil, err
		}
		if old.lineage != second.lineage {
			return nil, violation("ValidationException", "snapshots %s and %s are not related", first, id).withReason("UNRELATED_SNAPSHOTS")
		}
	}
	var changed []int32
	for index, sum := range second.blocks {
		if former, ok := old.blocks[index]; !ok || former != sum {
			changed = append(changed, index)
		}
	}
	for index := range old.blocks {
		if _, ok := second.blocks[index]; !ok {
			changed = append(changed, index)
		}
	}
	slices.Sort(changed)
	subject := first + ".." + id
	pg, err := c.page(subject)
	if err != nil {
		return nil, err
	}
	out := listing{ExpiryTime: epoch(c.now().AddDate(0, 0, 7)), VolumeSize: second.size, BlockSize: BlockSize}
	changed, out.NextToken = pg.cut(changed, subject)
	for _, index := range changed {
		b := block{BlockIndex: index}
		if _, ok := old.blocks[index]; ok {
			b.FirstBlockToken = old.token(index)
		}
		if _, ok := second.blocks[index]; ok {
			b.SecondBlockToken = second.token(index)
		}
		out.ChangedBlocks = append(out.ChangedBlocks, b)
	}
	return encodeJSON(http.StatusOK, "application/json", out), nil
}

func (c *call) getSnapshotBlock() (any, error) {
	id, _, _ := strings.Cut(c.Resource, "/")
	number, err := strconv.ParseInt(c.Resource[strings.LastIndex(c.Resource, "/")+1:], 10, 32)
	if err != nil {
		return nil, violation("ValidationException", "block index: %v", err).withReason("INVALID_BLOCK")
	}
	index := int32(number)
	c.mu.Lock()
	p, err := c.readable(id)
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	sum, ok := p.blocks[index]
	token := p.token(index)
	if ok {
		c.blocks.use(sum) // keep it until it is read
		defer c.blocks.release(sum)
	}
	c.mu.Unlock()
	if !ok || c.http.URL.Query().Get("blockToken") != token {
		return nil, violation("ValidationException", "the block token does not belong to block %d of %s", index, id).withReason("INVALID_BLOCK_TOKEN")
	}
	data := make([]byte, BlockSize)
	if err := c.blocks.readAt(sum, data, 0); err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, body: data, header: map[string]string{
		"Content-Type":             "application/octet-stream",
		"x-amz-Data-Length":        strconv.Itoa(BlockSize),
		"x-amz-Checksum":           base64.StdEncoding.EncodeToString(sum[:]),
		"x-amz-Checksum-Algorithm": "SHA256",
	}}, nil
}
