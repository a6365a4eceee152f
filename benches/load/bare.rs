//! The bare loop: what the system itself asks for the same bytes to the same number of sockets.
//!
//! It does what no server can do without: one write per socket. By its first connection it is told
//! what to write; every connection after that gets it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// Listens, then lives until the first connection ends.
pub(crate) fn run() -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let (mut orders, _) = listener.accept()?;
    let count = number(&mut orders)?;
    let mut sockets = Vec::<TcpStream>::new();
    for _ in 0..count {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    let mut bytes = Vec::new();
    while let Ok(size) = number(&mut orders) {
        bytes.resize(size as usize, 0);
        orders.read_exact(&mut bytes)?;
        for socket in &mut sockets {
            socket.write_all(&bytes)?;
        }
    }
    Ok(())
}

fn number(stream: &mut TcpStream) -> std::io::Result<u32> {
    let mut number = [0; 4];
    stream.read_exact(&mut number)?;
    Ok(u32::from_be_bytes(number))
}
