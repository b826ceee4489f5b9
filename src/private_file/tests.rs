//! Permissions, replacement, and what happens when two want to write.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::mpsc;

use super::*;

fn directory(mode: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    dir
}

fn text(error: &PrivateFileError) -> String {
    error.to_string()
}

#[test]
fn what_is_written_is_read_and_nobody_elses() {
    let dir = directory(0o700);
    let file = PrivateFile::new(dir.path().join("deeper/state"), DirectoryPolicy::OwnerOnly);
    assert!(file.read().unwrap().is_none());
    let locked = file.lock(|| panic!("nobody else")).unwrap();
    assert!(locked.read().unwrap().is_none());
    locked.replace(b"one").unwrap();
    locked.replace(b"two").unwrap();
    assert_eq!(file.read().unwrap().unwrap().as_slice(), b"two");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(file.path()), 0o600);
    assert_eq!(mode(&dir.path().join("deeper")), 0o700);
    locked.remove().unwrap();
    locked.remove().unwrap();
    assert!(file.read().unwrap().is_none());
}

#[test]
fn a_rest_of_a_crash_is_no_obstacle() {
    let dir = directory(0o700);
    let file = PrivateFile::new(dir.path().join("state"), DirectoryPolicy::OwnerOnly);
    fs::write(dir.path().join("state.new"), "half").unwrap();
    file.lock(|| ()).unwrap().replace(b"whole").unwrap();
    assert_eq!(file.read().unwrap().unwrap().as_slice(), b"whole");
    assert!(!dir.path().join("state.new").exists());
}

#[test]
fn what_others_may_read_is_refused() {
    let dir = directory(0o700);
    let path = dir.path().join("state");
    fs::write(&path, "secret").unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let file = PrivateFile::new(path.clone(), DirectoryPolicy::OwnerOnly);
        let said = text(&file.read().unwrap_err());
        assert!(said.contains("chmod 600"), "{said}");
    }
}

#[test]
fn a_directory_open_to_others_is_refused() {
    for (mode, kind, fine) in [
        (0o755, DirectoryPolicy::OwnerOnly, false),
        (0o710, DirectoryPolicy::OwnerOnly, false),
        (0o755, DirectoryPolicy::OthersMayRead, true),
        (0o775, DirectoryPolicy::OthersMayRead, false),
        (0o1777, DirectoryPolicy::OthersMayRead, true),
    ] {
        let dir = directory(mode);
        let file = PrivateFile::new(dir.path().join("state"), kind);
        assert_eq!(file.lock(|| ()).is_ok(), fine, "{mode:o} {kind:?}");
    }
}

#[test]
fn a_link_or_another_kind_of_thing_is_refused() {
    let dir = directory(0o700);
    let target = dir.path().join("target");
    fs::write(&target, "x").unwrap();
    let link = dir.path().join("link");
    symlink(&target, &link).unwrap();
    assert!(
        PrivateFile::new(link, DirectoryPolicy::OwnerOnly)
            .read()
            .is_err()
    );
    let inner = dir.path().join("dir");
    fs::create_dir(&inner).unwrap();
    let said = text(
        &PrivateFile::new(inner, DirectoryPolicy::OwnerOnly)
            .read()
            .unwrap_err(),
    );
    assert!(said.contains("not a plain file"), "{said}");
}

#[test]
fn what_cannot_be_written_is_known_before_anything_is_done() {
    let dir = directory(0o700);
    let blocker = dir.path().join("file");
    fs::write(&blocker, "x").unwrap();
    let below = PrivateFile::new(blocker.join("state"), DirectoryPolicy::OwnerOnly);
    assert!(below.lock(|| ()).is_err());
    let file = PrivateFile::new(dir.path().join("state"), DirectoryPolicy::OwnerOnly);
    fs::create_dir(dir.path().join("state.new")).unwrap();
    let said = text(&file.lock(|| ()).unwrap_err());
    assert!(said.contains("cannot write it"), "{said}");
}

#[test]
fn a_huge_file_is_refused() {
    let dir = directory(0o700);
    let path = dir.path().join("state");
    fs::write(&path, vec![b' '; 1024 * 1024 + 1]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = PrivateFile::new(path, DirectoryPolicy::OwnerOnly);
    assert!(text(&file.read().unwrap_err()).contains("1 MiB"));
}

#[test]
fn the_second_waits_for_the_first() {
    let dir = directory(0o700);
    let file = PrivateFile::new(dir.path().join("state"), DirectoryPolicy::OwnerOnly);
    let first = file.lock(|| ()).unwrap();
    let (waits, waiting) = mpsc::channel();
    let second = {
        let file = file.clone();
        std::thread::spawn(move || {
            let locked = file.lock(|| waits.send(()).unwrap()).unwrap();
            locked.read().unwrap().unwrap().to_vec()
        })
    };
    waiting.recv().unwrap();
    first.replace(b"first").unwrap();
    drop(first);
    assert_eq!(second.join().unwrap(), b"first");
}
