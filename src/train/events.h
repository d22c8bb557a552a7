// SPDX-License-Identifier: Apache-2.0
// TensorBoard's event files: run_dir/<stage>/events.out.tfevents.<seconds>.<host>.<process>, a new one each time that a stage starts.
// A stage has a directory of its own (TensorBoard calls it a run) because a START event drops the later steps of every tag there.
//
// A file is a sequence of records; format: TensorFlow's record_writer.h, event.proto, summary.proto. Numbers are little endian.
//   SIZE  DESCRIPTION
//      8  n
//      4  masked CRC-32C of these 8 bytes
//      n  an Event as protocol buffers encode it
//      4  masked CRC-32C of the Event. Masked: rotated right by 15 bits, then 0xa282ead8 is added
// Fields in use, by number:
//   Event       1 wall_time (double)  2 step  3 file_version  5 summary  7 session_log
//   Summary     1 value, repeated: 1 tag, 2 simple_value (float)
//   SessionLog  1 status
// The first Event is file_version "brain.Event:2", the second a START: points of its step and later ones, which files before
// this one hold, are no longer valid. Every other is a line of metrics.jsonl, a value a quantity, tag <stage>/<quantity>.
#ifndef IMF_TRAIN_EVENTS_H
#define IMF_TRAIN_EVENTS_H

#include <stdint.h>

#include "base/err.h"
#include "base/io.h"

typedef struct Scalar {
    char name[40];
    double value;
} Scalar;

typedef struct Events {
    int fd;             // -1: none is written, and the functions below do nothing
    const char *stage;  // borrowed
    char path[IO_PATH];
} Events;

// Local; run_dir/<stage> is there. step: the first one that this start computes. ERR_CREATE: the file cannot be made. ERR_IO, of these
// functions: writing failed half-way; what is torn ends this file, and the next start begins another.
Err events_open(Events *e, const char *run_dir, const char *stage, int64_t step) ERR_MUST_CHECK;
void events_close(Events *e);

// Local. One Event, written at once. Numbers that a float cannot hold are left out, NaN too.
Err events_add(const Events *e, int64_t step, const Scalar *s, int n) ERR_MUST_CHECK;

// Local. The events so far are on the disk.
Err events_sync(const Events *e) ERR_MUST_CHECK;

#endif
