//! A connection after `101 Switching Protocols`: bytes in both directions, as they are.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::duplex::{Duplex, caller_gone};
use super::waits::Wait;
use crate::proxy::error::{ErrorKind, RelayError, Side};

/// How long a tunnel may transfer nothing. WebSockets stay open for hours.
const IDLE: Duration = Duration::from_hours(6);
/// The same once one side has ended its direction.
const HALF_CLOSED_IDLE: Duration = Duration::from_mins(1);

/// One direction of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Open,
    /// Its sender has ended it, which is being passed on.
    Ending,
    Ended,
}

struct Tunnel {
    up: Direction,
    /// Bytes on their way to the upstream.
    piece: Bytes,
    down: Direction,
    /// When the tunnel ends in any case.
    end: Option<Instant>,
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TunnelEnd {
    Closed,
    /// At the end of its life.
    Expired,
}

impl Duplex<'_, '_> {
    /// Transfers bytes until the upstream ends the connection, at most for `life`. The end of life
    /// comes first, even for a peer that never pauses.
    pub(super) async fn tunnel(&mut self, life: Option<Duration>) -> Result<TunnelEnd, RelayError> {
        self.waits.begin_poll();
        for wait in [Wait::UpstreamRead, Wait::CallerRead, Wait::CallerWrite] {
            self.waits.end(wait);
        }
        let mut tunnel = Tunnel {
            up: Direction::Open,
            piece: Bytes::new(),
            down: Direction::Open,
            end: life.and_then(|life| self.waits.now().checked_add(life)),
        };
        if let Some(life) = life {
            self.waits.begin(Wait::Life, life);
        }
        poll_fn(|cx| self.poll_tunnel(&mut tunnel, cx)).await
    }

    fn poll_tunnel(
        &mut self,
        tunnel: &mut Tunnel,
        cx: &mut Context<'_>,
    ) -> Poll<Result<TunnelEnd, RelayError>> {
        self.waits.begin_poll();
        loop {
            if tunnel.end.is_some_and(|end| self.waits.now() >= end) {
                return Poll::Ready(Ok(TunnelEnd::Expired));
            }
            let down = self.poll_tunnel_down(tunnel, cx)?;
            let up = self.poll_tunnel_up(tunnel, cx)?;
            if tunnel.down == Direction::Ended {
                return Poll::Ready(Ok(TunnelEnd::Closed));
            }
            if down.is_pending() && up.is_pending() {
                break;
            }
            self.waits.end(Wait::Idle);
        }
        let idle = match tunnel.up {
            Direction::Open => IDLE,
            Direction::Ending | Direction::Ended => HALF_CLOSED_IDLE,
        };
        self.waits.begin(Wait::Idle, idle);
        match ready!(self.waits.poll(self.caller.deadline, cx)) {
            Wait::Life => Poll::Ready(Ok(TunnelEnd::Expired)),
            Wait::Idle if tunnel.up != Direction::Open => Poll::Ready(Err(caller_gone())),
            wait => Poll::Ready(Err(self.expired(wait))),
        }
    }

    /// Moves the next bytes to the caller.
    fn poll_tunnel_down(
        &mut self,
        tunnel: &mut Tunnel,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, RelayError> {
        let downstream = &mut self.caller.downstream;
        if tunnel.down == Direction::Open && self.upstream.chunk().is_empty() {
            match self.upstream.poll_body(cx) {
                Poll::Ready(more) => {
                    if !more? {
                        tunnel.down = Direction::Ending;
                    }
                }
                Poll::Pending => {
                    let flushed = downstream.poll_flush(cx);
                    return Ok(match self.track_finish(flushed) {
                        Poll::Ready(flushed) => flushed.map(|()| Poll::Pending)?,
                        Poll::Pending => Poll::Pending,
                    });
                }
            }
        }
        let written = if tunnel.down == Direction::Open {
            let written = downstream.poll_write(cx, self.upstream.chunk(), false);
            self.track_write(written)
        } else {
            let finished = downstream.poll_finish(cx, &mut None);
            self.track_finish(finished).map_ok(|()| 0)
        };
        match written {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(written) => self.upstream.consume(written?),
        }
        if tunnel.down == Direction::Ending {
            tunnel.down = Direction::Ended;
        }
        Ok(Poll::Ready(()))
    }

    /// Moves the next bytes to the upstream.
    fn poll_tunnel_up(
        &mut self,
        tunnel: &mut Tunnel,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, RelayError> {
        if tunnel.up == Direction::Open && tunnel.piece.is_empty() {
            match self.caller.downstream.poll_body(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(piece) => match piece? {
                    None => tunnel.up = Direction::Ending,
                    Some(piece) => {
                        self.caller.body.count_tunnel(piece.len());
                        tunnel.piece = piece;
                    }
                },
            }
        }
        let before = tunnel.piece.len();
        let sent = match tunnel.up {
            Direction::Open => self.upstream.poll_write(cx, &mut tunnel.piece, false),
            Direction::Ending => self.upstream.poll_finish(cx, &mut None),
            Direction::Ended => return self.poll_caller_lost(cx),
        };
        match sent {
            Poll::Pending => {
                if tunnel.piece.len() < before {
                    self.waits.end(Wait::UpstreamWrite);
                    self.waits.end(Wait::Idle);
                }
                self.waits.begin(Wait::UpstreamWrite, self.write_timeout);
                return self.poll_caller_lost(cx);
            }
            // The upstream may have closed its side, which ends the tunnel once it is read.
            Poll::Ready(Err(_)) => tunnel.up = Direction::Ended,
            Poll::Ready(Ok(())) if tunnel.up == Direction::Ending => tunnel.up = Direction::Ended,
            Poll::Ready(Ok(())) => {}
        }
        self.waits.end(Wait::UpstreamWrite);
        Ok(Poll::Ready(()))
    }

    /// Pending, unless the caller is lost, which a read would tell if there were one.
    fn poll_caller_lost(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, RelayError> {
        match self.caller.downstream.poll_lost(cx) {
            Poll::Ready(()) => Err(caller_gone()),
            Poll::Pending => Ok(Poll::Pending),
        }
    }
}

/// Returns the error of a tunnel that was closed at the end of its life.
pub(super) fn expired() -> RelayError {
    let cause = "the caller's token has expired";
    RelayError::new(Side::Caller, ErrorKind::Closed, cause)
}
