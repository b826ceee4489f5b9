//! The servers of the store.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::free_port;

/// The name of the master that the sentinel watches.
pub(crate) const MASTER: &str = "bench";

/// A server; killed on drop.
pub(crate) struct Server {
    pub(crate) port: u16,
    child: Child,
}

impl Server {
    /// Starts a server that keeps everything in memory, with `more` arguments.
    pub(crate) fn start(program: &Path, dir: &Path, more: &[&str]) -> Self {
        let port = free_port();
        let port_text = port.to_string();
        let mut args = vec!["--port", &port_text, "--bind", "127.0.0.1"];
        args.extend(["--save", "", "--appendonly", "no", "--protected-mode", "no"]);
        args.extend(["--repl-diskless-sync-delay", "0"]);
        args.extend_from_slice(more);
        let child = spawn(Command::new(program).args(&args).current_dir(dir));
        let server = Self { port, child };
        server.wait_until_ready();
        server
    }

    /// Starts a sentinel that makes a replica the master half a second after `master` is gone.
    pub(crate) fn sentinel(program: &Path, dir: &Path, master: &Self) -> Self {
        let port = free_port();
        let file = dir.join(format!("sentinel-{port}.conf"));
        let text = format!(
            "port {port}\nbind 127.0.0.1\nprotected-mode no\n\
             sentinel monitor {MASTER} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {MASTER} 500\n\
             sentinel failover-timeout {MASTER} 3000\n",
            master.port
        );
        fs::write(&file, text).expect("a configuration");
        let child = spawn(
            Command::new(program)
                .arg(&file)
                .arg("--sentinel")
                .current_dir(dir),
        );
        let server = Self { port, child };
        server.wait_until_ready();
        server
    }

    /// The first line of the answer to `command`.
    pub(crate) fn ask(&self, command: &str) -> Option<String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        (&stream)
            .write_all(format!("{command}\r\n").as_bytes())
            .ok()?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).ok()?;
        Some(line.trim().to_owned())
    }

    /// Waits until `command` has an answer that `accepts`.
    pub(crate) fn wait_for(&self, command: &str, accepts: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !self.ask(command).is_some_and(|answer| accepts(&answer)) {
            assert!(start.elapsed() < Duration::from_secs(20), "no {command}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_until_ready(&self) {
        self.wait_for("PING", |answer| answer == "+PONG");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a running server");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A stopped process is killed, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &mut Command) -> Child {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    quiet.stderr(Stdio::null()).spawn().expect("a server")
}

/// The server on the path.
pub(crate) fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let all = ["valkey-server", "redis-server"].map(|name| {
        let mut found = folders.iter().map(|folder| folder.join(name));
        found.find(|program| program.is_file())
    });
    let found = all.into_iter().flatten().next();
    found
        .expect("neither valkey-server nor redis-server is installed: apt-get install redis-server")
}
