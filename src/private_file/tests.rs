//! Permissions, atomic replacement and locking.

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
fn a_file_is_created_owner_only_and_can_be_replaced_and_removed() {
    let dir = directory(0o700);
    let file = PrivateFile::new(dir.path().join("deeper/state"), DirectoryPolicy::OwnerOnly);
    assert!(file.read().unwrap().is_none());
    let locked = file.lock(|| panic!("the lock is free")).unwrap();
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
fn a_temporary_file_left_by_a_crash_is_replaced() {
    let dir = directory(0o700);
    let file = PrivateFile::new(dir.path().join("state"), DirectoryPolicy::OwnerOnly);
    fs::write(dir.path().join("state.new"), "half").unwrap();
    file.lock(|| ()).unwrap().replace(b"whole").unwrap();
    assert_eq!(file.read().unwrap().unwrap().as_slice(), b"whole");
    assert!(!dir.path().join("state.new").exists());
}

#[test]
fn a_file_accessible_to_other_users_is_rejected() {
    let dir = directory(0o700);
    let path = dir.path().join("state");
    fs::write(&path, "secret").unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let file = PrivateFile::new(path.clone(), DirectoryPolicy::OwnerOnly);
        let error = text(&file.read().unwrap_err());
        assert!(error.contains("chmod 600"), "{error}");
    }
}

#[test]
fn a_directory_that_violates_its_policy_is_rejected() {
    for (mode, policy, accepted) in [
        (0o755, DirectoryPolicy::OwnerOnly, false),
        (0o710, DirectoryPolicy::OwnerOnly, false),
        (0o755, DirectoryPolicy::OthersMayRead, true),
        (0o775, DirectoryPolicy::OthersMayRead, false),
        (0o1777, DirectoryPolicy::OthersMayRead, true),
    ] {
        let dir = directory(mode);
        let file = PrivateFile::new(dir.path().join("state"), policy);
        assert_eq!(file.lock(|| ()).is_ok(), accepted, "{mode:o} {policy:?}");
    }
}

#[test]
fn a_symlink_or_directory_is_rejected() {
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
    let error = text(
        &PrivateFile::new(inner, DirectoryPolicy::OwnerOnly)
            .read()
            .unwrap_err(),
    );
    assert!(error.contains("not a regular file"), "{error}");
}

#[test]
fn lock_fails_if_the_file_cannot_be_written() {
    let dir = directory(0o700);
    let blocker = dir.path().join("file");
    fs::write(&blocker, "x").unwrap();
    let below = PrivateFile::new(blocker.join("state"), DirectoryPolicy::OwnerOnly);
    assert!(below.lock(|| ()).is_err());
    let file = PrivateFile::new(dir.path().join("state"), DirectoryPolicy::OwnerOnly);
    fs::create_dir(dir.path().join("state.new")).unwrap();
    let error = text(&file.lock(|| ()).unwrap_err());
    assert!(error.contains("cannot write"), "{error}");
}

#[test]
fn a_file_over_the_size_limit_is_rejected() {
    let dir = directory(0o700);
    let path = dir.path().join("state");
    fs::write(&path, vec![b' '; 1024 * 1024 + 1]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = PrivateFile::new(path, DirectoryPolicy::OwnerOnly);
    assert!(text(&file.read().unwrap_err()).contains("1 MiB"));
}

#[test]
fn a_second_lock_waits_for_the_first_to_be_released() {
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
