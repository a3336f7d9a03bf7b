package main

import (
	"bytes"
	"os"
	"time"
)

// A guest prints as much as it likes: a log that is this long is renamed to "NAME.1", which replaces an older one.
const longestLog = 16 << 20

// lineLog is what a VM prints, in a file: each line begins with the time.
type lineLog struct {
	path      string
	file      *os.File
	size      int64
	isNewLine bool
	isFailing bool
}

func openLog(path string) (*lineLog, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &lineLog{path: path, file: file, size: info.Size(), isNewLine: true}, nil
}

// Write implements io.Writer. A disk that is full must not end a VM: that is said once, and the bytes are lost.
func (l *lineLog) Write(output []byte) (int, error) {
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000Z ")
	var text []byte
	for _, piece := range bytes.SplitAfter(output, []byte("\n")) {
		if len(piece) == 0 {
			continue
		}
		if l.isNewLine {
			text = append(text, now...)
		}
		text = append(text, piece...)
		l.isNewLine = piece[len(piece)-1] == '\n'
	}
	err := l.append(text)
	if err != nil && !l.isFailing {
		say(l.path, "cannot be written: %v", err)
	}
	l.isFailing = err != nil
	return len(output), nil
}

func (l *lineLog) append(text []byte) error {
	if l.size >= longestLog {
		os.Rename(l.path, l.path+".1")
		emptied, err := os.Create(l.path)
		if err != nil {
			return err
		}
		l.file.Close()
		l.file, l.size = emptied, 0
	}
	count, err := l.file.Write(text)
	l.size += int64(count)
	return err
}

// endLine ends a line that a guest has left unfinished.
func (l *lineLog) endLine() {
	if !l.isNewLine {
		l.Write([]byte("\n"))
	}
}

func (l *lineLog) close() {
	l.file.Close()
}
