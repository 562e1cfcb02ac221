// Package exporter holds what all output formats share. The packages below it
// read and write the formats; package format has the table of them.
package exporter

// Epoch is the default modification time of files, in seconds since 1970. It is
// 1980-01-01, the earliest time that FAT can store.
const Epoch int64 = 315532800
