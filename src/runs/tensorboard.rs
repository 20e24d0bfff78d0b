//! Scalars for TensorBoard: protocol-buffer events in checksummed records.

use crate::base::digest::crc32c;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// An event file.
#[derive(Debug)]
pub struct EventFile(File);

impl EventFile {
    pub(super) fn create(path: &Path, wall_time: f64) -> io::Result<Self> {
        let mut file = Self(File::create(path)?);
        let mut event = wall_time_field(wall_time);
        bytes_field(&mut event, 3, b"brain.Event:2");
        file.0.write_all(&record(&event))?;
        Ok(file)
    }

    /// Adds the value of `tag` at `step`; `wall_time` in seconds since 1970.
    pub fn scalar(&mut self, wall_time: f64, step: u64, tag: &str, value: f32) -> io::Result<()> {
        self.0.write_all(&record(&scalar_event(wall_time, step, tag, value)))
    }
}

/// Event { wall_time = 1, step = 2, summary = 5 { value = 1 { tag = 1, simple_value = 2 } } }
fn scalar_event(wall_time: f64, step: u64, tag: &str, value: f32) -> Vec<u8> {
    let mut item = Vec::new();
    bytes_field(&mut item, 1, tag.as_bytes());
    item.push(2 << 3 | 5);
    item.extend(value.to_le_bytes());
    let mut summary = Vec::new();
    bytes_field(&mut summary, 1, &item);
    let mut event = wall_time_field(wall_time);
    event.push(2 << 3);
    varint(&mut event, step);
    bytes_field(&mut event, 5, &summary);
    event
}

fn wall_time_field(seconds: f64) -> Vec<u8> {
    let mut out = vec![1 << 3 | 1];
    out.extend(seconds.to_le_bytes());
    out
}

fn bytes_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Length, its masked checksum, content, its masked checksum.
fn record(content: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8).to_le_bytes();
    let length = (content.len() as u64).to_le_bytes();
    [length.as_slice(), &masked(&length), content, &masked(content)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_the_bytes_that_tensorflow_writes() {
        let event = scalar_event(1.5, 300, "a", 2.0);
        let expected = [
            &[0x09, 0, 0, 0, 0, 0, 0, 0xF8, 0x3F][..],
            &[0x10, 0xAC, 0x02],
            &[0x2A, 10, 0x0A, 8, 0x0A, 1, b'a', 0x15, 0, 0, 0, 0x40],
        ];
        assert_eq!(event, expected.concat());
    }

    #[test]
    fn a_record_carries_the_masked_checksums() {
        let record = record(b"123456789");
        assert_eq!(record.len(), 8 + 4 + 9 + 4);
        let masked = 0xE306_9283u32.rotate_right(15).wrapping_add(0xA282_EAD8);
        assert_eq!(record[21..], masked.to_le_bytes());
    }
}
