//! A TCP proxy that misbehaves on purpose, for everything that speaks over a connection.
//!
//! In: connections, and a fault that holds for those opened after it was chosen. Out: the same bytes, fewer, slower,
//! or a reset.
//!
//! ```text
//!   client ──request──> [ proxy: fault ] ──request──> destination
//!          <──answer──                   <──answer──
//! ```
//!
//! Never looks into the bytes: where a fault strikes is counted in bytes of one direction.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How often a stalled connection is looked at.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// What a proxy does to the connections opened from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Resets each connection as soon as it is open.
    Refuse,
    /// Resets once so many bytes of the request have passed; the destination sees it break off.
    ResetRequestAfter(u64),
    /// Resets once so many bytes of the answer have passed, 0 for none: the destination has done its work, and the
    /// client does not hear of it.
    ResetAnswerAfter(u64),
    /// Passes on so many bytes of the request, then none, and holds the connection open.
    StallRequestAfter(u64),
    /// Passes on the request and holds the answer back.
    StallAnswer,
    /// Passes on the request in pieces of at most 16 KiB, each after this interval.
    SlowRequest(Duration),
    /// Passes on one byte of the request in each interval.
    TrickleRequest(Duration),
    /// Passes on one byte of the answer in each interval.
    TrickleAnswer(Duration),
}

/// A running proxy. Stops when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    fault: Arc<Mutex<Fault>>,
    opened: Arc<AtomicU64>,
    /// Holds the accepting task, which holds those of the connections.
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy on a free port of the loopback interface.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn start(destination: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (fault, opened) = (Arc::new(Mutex::new(Fault::None)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, destination, Arc::clone(&fault), Arc::clone(&opened)));
        Ok(Self { address, fault, opened, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Chooses what happens to connections that are opened from now on. Those that are open keep their fault.
    pub fn choose(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// How many connections were opened to it.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, destination: SocketAddr, fault: Arc<Mutex<Fault>>, opened: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        opened.fetch_add(1, Ordering::Relaxed);
        let fault = *fault.lock().unwrap_or_else(PoisonError::into_inner);
        connections.spawn(carry(client, destination, fault));
        while connections.try_join_next().is_some() {}
    }
}

/// Carries one connection to its end. What ends it does not matter: either side sees it end.
async fn carry(mut client: TcpStream, destination: SocketAddr, fault: Fault) {
    // A connection that ends with this set is reset, not closed.
    let is_reset = matches!(fault, Fault::Refuse | Fault::ResetRequestAfter(_) | Fault::ResetAnswerAfter(_));
    if is_reset && client.set_zero_linger().is_err() || fault == Fault::Refuse {
        return;
    }
    let Ok(mut server) = TcpStream::connect(destination).await else { return };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let (request, answer) = match fault {
        Fault::None | Fault::Refuse => (Flow::ALL, Flow::ALL),
        Fault::ResetRequestAfter(bytes) => (Flow::upto(bytes), Flow::ALL),
        Fault::ResetAnswerAfter(bytes) => (Flow::ALL, Flow::upto(bytes)),
        Fault::StallRequestAfter(bytes) => (Flow { then: Then::HoldForSender, ..Flow::upto(bytes) }, Flow::ALL),
        Fault::StallAnswer => (Flow::ALL, Flow { then: Then::HoldForReceiver, ..Flow::upto(0) }),
        Fault::SlowRequest(interval) => (Flow { interval, ..Flow::ALL }, Flow::ALL),
        Fault::TrickleRequest(interval) => (Flow::trickle(interval), Flow::ALL),
        Fault::TrickleAnswer(interval) => (Flow::ALL, Flow::trickle(interval)),
    };
    // The first direction that ends, ends both, and the sockets close without a farewell where they are to be reset.
    tokio::select! {
        () = pump(from_client, to_server, request) => {}
        () = pump(from_server, to_client, answer) => {}
    }
}

/// How one direction flows.
#[derive(Clone, Copy, Debug)]
struct Flow {
    bytes_max: u64,
    /// What happens when they have passed.
    then: Then,
    /// Zero, or the time that each piece takes.
    interval: Duration,
    /// Most bytes of a piece.
    piece: usize,
}

/// What is read at once, and the largest piece that is passed on.
const BUFFER_BYTES: usize = 16 << 10;

/// How a flow ends that is cut short.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// The connection ends.
    End,
    /// It is held open until the sender closes it.
    HoldForSender,
    /// It is held open until the receiver closes it, which the flow in the other direction sees.
    HoldForReceiver,
}

impl Flow {
    const ALL: Self = Self { bytes_max: u64::MAX, then: Then::End, interval: Duration::ZERO, piece: BUFFER_BYTES };

    const fn trickle(interval: Duration) -> Self {
        Self { interval, piece: 1, ..Self::ALL }
    }

    const fn upto(bytes_max: u64) -> Self {
        Self { bytes_max, ..Self::ALL }
    }
}

/// Moves bytes until the flow's end. With nothing allowed it waits for the first byte, so that a reset of an answer
/// comes when the answer does.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, flow: Flow) {
    let mut left = flow.bytes_max;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let pass = usize::try_from(left).unwrap_or(usize::MAX).min(read);
        let Some(bytes) = buffer.get(..pass) else { return };
        if write(&mut to, bytes, flow).await.is_err() {
            return;
        }
        left -= pass as u64;
        if left == 0 {
            match flow.then {
                Then::End => {}
                Then::HoldForSender => closed(&from).await,
                Then::HoldForReceiver => std::future::pending().await,
            }
            return;
        }
    }
}

/// Waits until the sender gives up, without taking what it sends: the receiver must not be left with a connection
/// that a dead sender holds open.
async fn closed(from: &ReadHalf<'_>) {
    while from.ready(Interest::READABLE).await.is_ok_and(|ready| !ready.is_read_closed()) {
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

async fn write(to: &mut WriteHalf<'_>, bytes: &[u8], flow: Flow) -> io::Result<()> {
    for piece in bytes.chunks(flow.piece) {
        if !flow.interval.is_zero() {
            tokio::time::sleep(flow.interval).await;
        }
        to.write_all(piece).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client reads that says `ping` to a server that answers `pong` and closes.
    async fn talk(fault: Fault) -> io::Result<String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let proxy = Proxy::start(listener.local_addr()?).await?;
        proxy.choose(fault);
        let server = async {
            let (mut connection, _) = listener.accept().await?;
            connection.read_exact(&mut [0; 4]).await?;
            connection.write_all(b"pong").await
        };
        let client = async {
            let mut connection = TcpStream::connect(proxy.address()).await?;
            connection.write_all(b"ping").await?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await?;
            Ok(answer)
        };
        let both = async {
            tokio::select! {
                answer = client => answer,
                // The server is done first where it is reached at all; the client decides.
                () = async { let _done = server.await; std::future::pending().await } => unreachable!(),
            }
        };
        tokio::time::timeout(Duration::from_secs(2), both).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    #[tokio::test]
    async fn each_fault_does_what_its_name_says() {
        assert_eq!(talk(Fault::None).await.unwrap(), "pong");
        assert_eq!(talk(Fault::SlowRequest(Duration::from_millis(5))).await.unwrap(), "pong");
        assert_eq!(talk(Fault::TrickleRequest(Duration::from_millis(5))).await.unwrap(), "pong");
        assert_eq!(talk(Fault::TrickleAnswer(Duration::from_millis(5))).await.unwrap(), "pong");
        for (fault, kind) in [
            (Fault::Refuse, io::ErrorKind::ConnectionReset),
            (Fault::ResetRequestAfter(2), io::ErrorKind::ConnectionReset),
            (Fault::ResetAnswerAfter(0), io::ErrorKind::ConnectionReset),
            (Fault::StallRequestAfter(2), io::ErrorKind::TimedOut),
            (Fault::StallAnswer, io::ErrorKind::TimedOut),
        ] {
            assert_eq!(talk(fault).await.unwrap_err().kind(), kind, "{fault:?}");
        }
    }
}
