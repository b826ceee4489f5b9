//! The program as a child process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::wait::{DEADLINE, within};

/// Exit code and output of a run.
#[derive(Debug)]
pub(crate) struct Exited {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Exited {
    /// Runs a command to its end; blocks this thread.
    pub(crate) fn run(command: &mut std::process::Command) -> Self {
        command.output().unwrap().into()
    }
}

impl From<std::process::Output> for Exited {
    fn from(output: std::process::Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// The lines that a child process writes to stderr, read with a deadline. A thread reads them
/// continuously, so that the pipe does not fill up.
pub(crate) struct StderrLines {
    lines: mpsc::Receiver<String>,
    output: Vec<String>,
}

impl StderrLines {
    /// Takes over the stderr of `child`, which must be piped.
    pub(crate) fn of(child: &mut std::process::Child) -> Self {
        let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            use std::io::BufRead as _;
            // The test may have ended and dropped the receiver.
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self {
            lines,
            output: Vec::new(),
        }
    }

    /// Reads until a line contains `text`, and returns that line; blocks this thread.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(DEADLINE) else {
                panic!("no line with {text:?} on stderr: {:#?}", self.output)
            };
            self.output.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Reads the next line; `None` once the program has closed stderr. Blocks this thread.
    pub(crate) fn next(&mut self) -> Option<String> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the program writes nothing more"),
        }
    }

    /// Reads until the program has closed stderr, and returns every line; blocks this thread.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => self.output.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return std::mem::take(&mut self.output);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("the program does not exit: {:#?}", self.output)
                }
            }
        }
    }
}

/// A running program for tests that block their thread; killed when dropped.
pub(crate) struct Server {
    pub(crate) child: std::process::Child,
    pub(crate) stderr: StderrLines,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a command.
    pub(crate) fn spawn(command: &mut std::process::Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = StderrLines::of(&mut child);
        Self { child, stderr }
    }

    /// Sends a signal, unless the program has exited.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = self.child.id().try_into().unwrap();
        let pid = rustix::process::Pid::from_raw(id).unwrap();
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// The exit code, and every line of stderr.
    pub(crate) fn wait(mut self) -> (Option<i32>, Vec<String>) {
        let lines = self.stderr.finish();
        (self.child.wait().unwrap().code(), lines)
    }
}

/// A private home directory.
pub(crate) struct HomeDir {
    dir: TempDir,
}

/// A running program; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: ChildStdout,
    stderr: Lines<BufReader<ChildStderr>>,
    output: String,
}

impl HomeDir {
    pub(crate) fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hawkgate"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("XDG_STATE_HOME", self.path("state-home"))
            // Hides any browser installed on this machine.
            .env("PATH", self.dir.path())
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `hawkgate` until it exits.
    pub(crate) async fn run(&self, args: &[&str]) -> Exited {
        self.start(args).wait().await
    }

    /// Starts `hawkgate`.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut child = self.command(args).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Running {
            stdout: child.stdout.take().unwrap(),
            stderr,
            child,
            output: String::new(),
        }
    }
}

impl Running {
    /// Reads stderr until a line contains `text`, and returns that line.
    pub(crate) async fn wait_for_line(&mut self, text: &str) -> String {
        let reading = async {
            while let Some(line) = self.stderr.next_line().await.unwrap() {
                self.output.push_str(&line);
                self.output.push('\n');
                if line.contains(text) {
                    return line;
                }
            }
            panic!("stderr ended without {text:?}: {:?}", self.output)
        };
        within("a line on stderr", reading).await
    }

    /// The resident memory that is its own (`RssAnon`), in bytes: pages of files come and go.
    pub(crate) fn resident_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id().unwrap());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
        let kilobytes = line.split_whitespace().nth(1).unwrap();
        kilobytes.parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = self.child.id().unwrap().try_into().unwrap();
        let pid = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Kills it, as a crash would.
    pub(crate) async fn kill_now(mut self) {
        self.child.kill().await.unwrap();
    }

    pub(crate) async fn wait(mut self) -> Exited {
        let all = async {
            let mut stdout = String::new();
            let out = self.stdout.read_to_string(&mut stdout);
            let err = async {
                while let Some(line) = self.stderr.next_line().await.unwrap() {
                    self.output.push_str(&line);
                    self.output.push('\n');
                }
            };
            let (out, ()) = tokio::join!(out, err);
            out.unwrap();
            let status = self.child.wait().await.unwrap();
            Exited {
                code: status.code().unwrap_or(-1),
                stdout,
                stderr: self.output,
            }
        };
        within("the program to exit", all).await
    }
}

impl Exited {
    /// Asserts that it succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Asserts that it exited with `code` and printed `text` to stderr.
    #[track_caller]
    pub(crate) fn fails_with(self, code: i32, text: &str) -> Self {
        assert!(
            self.code == code && self.stderr.contains(text),
            "{text:?}: {self:?}"
        );
        self
    }

    /// Asserts that the output contains none of `secrets`.
    #[track_caller]
    pub(crate) fn assert_secrets_absent(self, secrets: &[&str]) -> Self {
        for secret in secrets {
            assert!(secret.len() > 8, "too short to search for");
            let leaks = self.stdout.contains(secret) || self.stderr.contains(secret);
            assert!(!leaks, "the output contains a secret");
        }
        self
    }
}

/// The permission bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().mode() & 0o777
}
