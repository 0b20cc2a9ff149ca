//! What the tests share: a node as its own process, and a client that is nothing but a socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything; a machine that is busy with other tests is slow, not wrong.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A running node; killed when dropped.
pub(crate) struct Node {
    child: Child,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Node {
    /// Starts a node on ports of the kernel's choice, with settings as environment variables.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gatecast"))
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .env("RUST_LOG", "warn")
            // The load test opens its connections as fast as it can.
            .env("GATECAST_LIMITS_HANDSHAKE_RATE", "1000000")
            // More than one, wherever the tests run: what crosses from shard to shard is tested
            // too.
            .env("GATECAST_SHARDS", "2")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut addresses = lines.map_while(Result::ok).filter_map(|line| {
            let (_, rest) = line.split_once("://").filter(|_| !line.contains("Management"))?;
            let address: String = rest
                .chars()
                .take_while(|char| char.is_ascii_digit() || matches!(char, '.' | ':'))
                .collect();
            address.parse().ok()
        });
        let mut next = || addresses.next().expect("an address on standard output");
        let (public, admin) = (next(), next());
        Self { child, public, admin }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the sum of a metric over all its label values that contain `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> f64 {
        let mut socket = TcpStream::connect(self.admin).expect("the admin port");
        socket
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .expect("written");
        let mut text = String::new();
        socket.read_to_string(&mut text).expect("an answer");
        text.lines()
            .filter(|line| {
                line.starts_with(name)
                    && line[name.len()..].starts_with([' ', '{'])
                    && line.contains(labels)
            })
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the node ends", || self.child.try_wait().expect("our child"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until `probe` gives something.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Close(u16, String),
    Other(u8),
    End,
}

/// A client without a library in between: what it sends and reads is what is on the wire.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects and waits for the answer to the handshake.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::upgrade(TcpStream::connect(address).expect("the public port"))
    }

    /// Takes a socket on which the handshake is done.
    pub(crate) fn over(socket: TcpStream) -> Self {
        Self { socket, buffer: Vec::new() }
    }

    /// Does the handshake on a connected socket.
    pub(crate) fn upgrade(mut socket: TcpStream) -> Self {
        socket.set_nodelay(true).expect("an option");
        socket.set_read_timeout(Some(DEADLINE)).expect("an option");
        let request = "GET /beta HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        socket.write_all(request.as_bytes()).expect("written");
        let mut client = Self::over(socket);
        let end = loop {
            if let Some(at) = client.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(client.fill() > 0, "the server hung up during the handshake");
        };
        let head: Vec<u8> = client.buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // RFC 6455 §1.3 gives the answer to this key.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        client
    }

    /// Sends a text message; the mask is all zeros, which is a mask.
    pub(crate) fn send(&mut self, text: &str) {
        let mut frame = vec![0x81];
        match u8::try_from(text.len()) {
            Ok(len) if len < 126 => frame.push(0x80 | len),
            _ => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(
                    &u16::try_from(text.len()).expect("short enough").to_be_bytes(),
                );
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        self.socket.write_all(&frame).expect("written");
    }

    /// Waits for the next frame.
    pub(crate) fn receive(&mut self) -> Frame {
        loop {
            if let Some((frame, len)) = decode(&self.buffer) {
                self.buffer.drain(..len);
                return frame;
            }
            if self.fill() == 0 {
                return Frame::End;
            }
        }
    }

    /// Waits for the next frame, which has to be text.
    pub(crate) fn receive_text(&mut self) -> String {
        match self.receive() {
            Frame::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    fn fill(&mut self) -> usize {
        let mut chunk = [0; 16 << 10];
        let count = match self.socket.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("nothing to read in time: {error}"),
        };
        self.buffer.extend_from_slice(&chunk[..count]);
        count
    }
}

fn decode(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (len, header) = match second {
        126 => (usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).ok()?, 10),
        len => (usize::from(len), 2),
    };
    let payload = bytes.get(header..header + len)?;
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let frame = match first {
        0x81 => Frame::Text(text(payload.to_vec())),
        0x88 => match payload.split_first_chunk::<2>() {
            Some((code, reason)) => Frame::Close(u16::from_be_bytes(*code), text(reason.to_vec())),
            None => Frame::Close(1005, String::new()),
        },
        other => Frame::Other(other),
    };
    Some((frame, header + len))
}

/// The load test's program, which the same build has made.
pub(crate) fn loadtest() -> Command {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_gatecast")).with_file_name("loadtest");
    assert!(program.exists(), "{} is missing; run cargo build --workspace", program.display());
    Command::new(program)
}
