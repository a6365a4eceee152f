//! The bare loop: the cost to the system of sending the same bytes to the same number of sockets.
//!
//! It does only what every server must do: one write per socket. Its first connection tells it what to
//! write; every later connection gets that.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// Listens until the first connection ends.
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
