package image

// WriteFormat is write for the tests in package image_test.
var WriteFormat = write
