//! The zip archives that `torch.save` writes: stored entries only, zip64, every offset checked.

use std::collections::BTreeMap;

/// Entries by name.
pub(super) type Entries<'a> = BTreeMap<String, &'a [u8]>;

const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
const END_BYTES: usize = 22;
const COMMENT_MAX: usize = 0xffff;

/// Little-endian number of `n` bytes at `at`.
fn uint(file: &[u8], at: usize, n: usize) -> Result<u64, String> {
    let bytes = at.checked_add(n).and_then(|end| file.get(at..end));
    let bytes = bytes.ok_or_else(|| format!("the archive is cut short or damaged at byte {at}"))?;
    Ok(bytes.iter().rev().fold(0, |value, &byte| (value << 8) | u64::from(byte)))
}

fn small(file: &[u8], at: usize, n: usize) -> Result<usize, String> {
    usize::try_from(uint(file, at, n)?).map_err(|e| e.to_string())
}

fn expect(file: &[u8], at: usize, signature: u32, what: &str) -> Result<(), String> {
    if uint(file, at, 4)? == u64::from(signature) {
        Ok(())
    } else {
        Err(format!("the archive is damaged: no {what} at byte {at}"))
    }
}

/// Reads the directory of `file` and gives the entries, whose checksums were compared.
pub(super) fn entries(file: &[u8]) -> Result<Entries<'_>, String> {
    let last = file.len().checked_sub(END_BYTES).ok_or("the archive is cut short")?;
    let end = (last.saturating_sub(COMMENT_MAX)..=last)
        .rev()
        .find(|&at| uint(file, at, 4) == Ok(u64::from(END)))
        .ok_or("the archive is cut short: its directory is missing")?;
    if end + END_BYTES + small(file, end + 20, 2)? != file.len() {
        return Err("the archive does not end with its directory".into());
    }
    let (mut n, mut at) = (small(file, end + 10, 2)?, small(file, end + 16, 4)?);
    if let Some(locator) = end.checked_sub(20)
        && uint(file, locator, 4)? == u64::from(LOCATOR64)
    {
        let end64 = small(file, locator + 8, 8)?;
        expect(file, end64, END64, "end of the directory")?;
        (n, at) = (small(file, end64 + 32, 8)?, small(file, end64 + 48, 8)?);
    }
    let mut found = Entries::new();
    // Entries do not overlap, so that checking them takes one pass over the file.
    let mut left = file.len();
    for _ in 0..n {
        expect(file, at, CENTRAL, "directory entry")?;
        let [name_len, extra_len, comment_len] = [28, 30, 32].map(|field| small(file, at + field, 2));
        let (name_len, extra_len) = (name_len?, extra_len?);
        let start = at + 46;
        let name = file.get(start..start + name_len).ok_or("the archive's directory is cut short")?;
        let name = String::from_utf8(name.to_vec()).map_err(|_| "the archive has a name that is no text")?;
        let data = entry(file, at, start + name_len, extra_len).map_err(|e| format!("{name}: {e}"))?;
        left = left.checked_sub(data.len()).ok_or("the archive is damaged: its entries overlap")?;
        if found.insert(name.clone(), data).is_some() {
            return Err(format!("the archive has {name} twice"));
        }
        at = start + name_len + extra_len + comment_len?;
    }
    Ok(found)
}

/// The bytes of the entry whose directory entry is at `at`, with its extra field at `extra`.
fn entry(file: &[u8], at: usize, extra: usize, extra_len: usize) -> Result<&[u8], String> {
    if small(file, at + 10, 2)? != 0 || small(file, at + 8, 2)? & 1 != 0 {
        return Err("is compressed or encrypted, which torch.save never does".into());
    }
    let crc = uint(file, at + 16, 4)?;
    let mut fields = [small(file, at + 24, 4)?, small(file, at + 20, 4)?, small(file, at + 42, 4)?];
    widen(file, extra, extra_len, &mut fields)?;
    let [size, packed, local] = fields;
    if size != packed {
        return Err("has two different sizes".into());
    }
    expect(file, local, LOCAL, "entry")?;
    let start = local + 30 + small(file, local + 26, 2)? + small(file, local + 28, 2)?;
    let data = start.checked_add(size).and_then(|end| file.get(start..end));
    let data = data.ok_or_else(|| format!("{size} bytes are announced, more than the file has"))?;
    if u64::from(crc_fast::crc32_iso_hdlc(data)) == crc {
        Ok(data)
    } else {
        Err("its checksum is wrong".into())
    }
}

/// Replaces fields of all ones by those of the zip64 extra field.
fn widen(file: &[u8], extra: usize, extra_len: usize, fields: &mut [usize; 3]) -> Result<(), String> {
    let (mut at, end) = (extra, extra + extra_len);
    while at + 4 <= end {
        let (id, n) = (small(file, at, 2)?, small(file, at + 2, 2)?);
        if id == 1 {
            let mut place = at + 4;
            for field in fields.iter_mut().filter(|f| **f == 0xffff_ffff) {
                if place + 8 > at + 4 + n {
                    return Err("its long sizes are missing".into());
                }
                *field = small(file, place, 8)?;
                place += 8;
            }
        }
        at += 4 + n;
    }
    Ok(())
}
