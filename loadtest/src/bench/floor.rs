//! The floor: a bare server that sends one ready frame to every socket with one `send(2)` each.
//!
//! Rule: no server that writes to each socket can cost less, so it is the reference; the same
//! client receives and checks its messages.
#![expect(clippy::print_stdout, reason = "the server tells its parent where it listens")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use anyhow::Result;
use socket2::{Domain, Socket, Type};

use crate::bench::args::{FloorArgs, FloorServerArgs};
use crate::bench::fleet::{Fleet, Opening};
use crate::bench::outcome::Outcome;
use crate::bench::relay::{self, Plan};
use crate::bench::report::Report;
use crate::bench::works::FLOOR;
use crate::shared::child::{self, Child};
use crate::shared::frame::{self, Opcode};
use crate::shared::process;
use crate::shared::progress::Steps;
use crate::shared::target::Target;

const BACKLOG: i32 = 4096;

/// Measures the floor alone.
pub(crate) fn floor(args: &FloorArgs) -> Result<Report> {
    let mut report = Report::new("floor");
    let plan = args.load.plan(1, args.connections, 1);
    process::reserve_files(args.connections)?;
    report
        .set(format!("{}, bare TCP, one message at a time", args.load.describe(args.connections)));
    let mut steps = Steps::new(args.load.repeat.rounds);
    for _ in 0..args.load.repeat.rounds {
        steps.begin(FLOOR);
        report.add_outcome("fanout, window 1", FLOOR, &measure(&plan)?);
    }
    Ok(report)
}

/// Starts a floor server, runs `plan` against it, ends it.
pub(crate) fn measure(plan: &Plan) -> Result<Outcome> {
    let frame_bytes = wire_frame(&"x".repeat(plan.bytes)).len();
    let mut command = Command::new(child::this_program()?);
    command.args(["floor-server", &plan.group_size.to_string(), &frame_bytes.to_string()]);
    let mut server = Child::start(&command, None)?;
    let port = server.word("port:")?.trim_start_matches("port:").parse()?;
    let mut fleet = Fleet::open(&[Target::local(port)], plan.group_size, Opening::Bare)?;
    server.word("accepted")?;
    let process = server.process().into();
    relay::run_after_warm_up(plan, |plan| {
        relay::run(&mut fleet, plan, &process, |_, post| server.write(&wire_frame(post.payload)))
    })
}

/// Runs the bare server: reads frames from standard input, sends each to every socket, ends with
/// the input.
pub(crate) fn serve(args: &FloorServerArgs) -> Result<()> {
    process::reserve_files(args.connections)?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    println!("port:{}", listener.local_addr()?.port());
    let mut clients = Vec::with_capacity(args.connections);
    while clients.len() < args.connections {
        let (client, _) = listener.accept()?;
        client.set_nodelay(true)?;
        clients.push(client);
    }
    println!("accepted");
    let mut frame = vec![0; args.frame_bytes];
    let mut input = io::stdin().lock();
    while input.read_exact(&mut frame).is_ok() {
        send_to_all(&clients, &frame)?;
    }
    Ok(())
}

fn send_to_all(clients: &[TcpStream], frame: &[u8]) -> Result<()> {
    for mut client in clients {
        client.write_all(frame)?;
    }
    Ok(())
}

fn wire_frame(payload: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(payload.len() + 10);
    frame::encode_server(&mut wire, Opcode::Text, payload.as_bytes());
    wire
}
