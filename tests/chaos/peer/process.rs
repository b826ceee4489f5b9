//! A peer as its parent sees it.

use std::net::SocketAddr;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::ADDRESS;
use crate::arguments::Role;

/// A peer's process; killed when dropped.
pub(crate) struct Peer {
    role: Role,
    address: SocketAddr,
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Starts a peer that listens on `address`.
    pub(crate) async fn start(role: Role, address: SocketAddr) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["peer", role.name()])
            .env(ADDRESS, address.to_string())
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = answers.next_line().await.unwrap();
        Self {
            role,
            address: address.expect("the peer could not listen").parse().unwrap(),
            commands: child.stdin.take().unwrap(),
            answers,
            child,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a command, and returns the answer.
    pub(crate) async fn command(&mut self, command: &str) -> String {
        self.commands.write_all(command.as_bytes()).await.unwrap();
        self.commands.write_all(b"\n").await.unwrap();
        self.answers
            .next_line()
            .await
            .unwrap()
            .expect("the peer is alive")
    }

    /// Makes it misbehave from now on; `none` ends that.
    pub(crate) async fn fault(&mut self, fault: &str) {
        self.command(&format!("fault {fault}")).await;
    }

    /// The number of requests on behalf of a forged token, and of registered clients.
    pub(crate) async fn count(&mut self) -> (u64, u64) {
        serde_json::from_str(&self.command("count").await).unwrap()
    }

    /// Kills it and waits until its port is free.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again, at `address`. It has forgotten everything.
    pub(crate) async fn restart_at(&mut self, address: SocketAddr) {
        *self = Self::start(self.role, address).await;
    }

    /// Sends SIGSTOP or SIGCONT.
    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(&self.child, signal);
    }
}

/// Sends a signal to a child process.
pub(crate) fn send_signal(child: &Child, signal: Signal) {
    let id = child.id().expect("the process has not exited");
    let pid = Pid::from_raw(id.try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}
