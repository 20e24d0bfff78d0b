//! Writes a session as Python's pickle (protocol 4) with numpy arrays, as the real files are.

use super::RawSession;

/// The bytes of the file.
pub(super) fn session(file: &RawSession) -> Vec<u8> {
    let mut out = vec![0x80, 4];
    out.extend(b"}(");
    for (key, name) in [("subject_id", &file.subject_id), ("session_id", &file.session_id)] {
        text(&mut out, key);
        match name.parse::<i64>() {
            Ok(number) => {
                out.extend([0x8a, 8]);
                out.extend(number.to_le_bytes());
            }
            Err(_) => text(&mut out, name),
        }
    }
    for (which, trials) in [("training", &file.training), ("testing", &file.testing)] {
        text(&mut out, &format!("{which}_responses"));
        let bytes: Vec<u8> = trials.responses.iter().flat_map(|r| r.to_le_bytes()).collect();
        array(&mut out, "f4", &[file.shape[0], file.shape[1], trials.ids.len()], &bytes);
        for (what, numbers) in [("image_ids", &trials.ids), ("labels", &trials.labels)] {
            if numbers.len() < trials.ids.len() {
                continue;
            }
            text(&mut out, &format!("{which}_{what}"));
            let bytes: Vec<u8> = numbers.iter().flat_map(|id| id.to_le_bytes()).collect();
            array(&mut out, "i8", &[numbers.len()], &bytes);
        }
    }
    out.extend(b"u.");
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend([0x8c, text.len() as u8]);
    out.extend(text.as_bytes());
}

fn global(out: &mut Vec<u8>, module: &str, name: &str) {
    text(out, module);
    text(out, name);
    out.push(0x93);
}

fn array(out: &mut Vec<u8>, dtype: &str, shape: &[usize], bytes: &[u8]) {
    global(out, "numpy.core.multiarray", "_reconstruct");
    global(out, "numpy", "ndarray");
    out.extend(b"K\0\x85C\x01b\x87R(K\x01(");
    for &axis in shape {
        out.push(b'J');
        out.extend((axis as i32).to_le_bytes());
    }
    out.push(b't');
    global(out, "numpy", "dtype");
    text(out, dtype);
    out.extend(b"\x89\x88\x87R(K\x03");
    text(out, "<");
    out.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89\x8e");
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
    out.extend(b"tb");
}
