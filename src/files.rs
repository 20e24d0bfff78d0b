//! Files that are there whole or not at all, and as open to others as the process's mask says.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Makes temporary files and folders that are not for their owner alone, as those of the crate are: the mask of the
/// process takes from `mode`.
pub fn temporary(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

/// Replaces `path` in one step: readers see the old bytes or the new ones, also after a power cut. What a process that
/// was killed had begun to write in its place is removed.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A bare name's parent is empty.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let begun = format!(".{name}.");
    loop {
        let mut file = temporary(0o666).prefix(&begun).suffix(BEGUN).tempfile_in(folder)?;
        // Held until it is in place. Where files cannot be locked nothing is taken for left over.
        let _ = file.as_file().try_lock();
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        match file.persist(path) {
            Ok(_) => break,
            // Another process took it for left over before it was locked.
            Err(e)
                if e.error.kind() == io::ErrorKind::NotFound
                    && !e.file.path().exists()
                    && folder.exists() => {}
            Err(e) => return Err(e.error),
        }
    }
    remove_left_over(folder, &begun);
    File::open(folder)?.sync_all()
}

/// How the names of files end that are not whole yet.
const BEGUN: &str = ".part";

/// Removes files of such names that nobody holds. What cannot be removed stays: it harms nobody.
fn remove_left_over(folder: &Path, begun: &str) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(begun) && name.ends_with(BEGUN) {
            let free = File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
            if free {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_another_writes_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.json");
        let [killed, alive, other] = [".list.json.a.part", ".list.json.b.part", ".else.json.c.part"];
        for name in [killed, alive, other] {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        let held = File::open(dir.path().join(alive)).unwrap();
        held.lock().unwrap();
        write_whole(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        let there = |name: &str| dir.path().join(name).exists();
        assert_eq!([killed, alive, other].map(there), [false, true, true]);
        drop(held);
        write_whole(&path, b"again").unwrap();
        assert!(!there(alive) && fs::read(&path).unwrap() == b"again");
    }

    #[test]
    fn many_writers_of_one_file_leave_one_of_theirs_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.json");
        std::thread::scope(|scope| {
            for writer in 0..4u8 {
                let path = &path;
                scope.spawn(move || (0..20).for_each(|_| write_whole(path, &[writer; 1000]).unwrap()));
            }
        });
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() == 1000 && bytes.iter().all(|&b| b == bytes[0]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
