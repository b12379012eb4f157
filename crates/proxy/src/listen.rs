//! Listening sockets: one per shard on the same address, so that the kernel spreads connections over the shards.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

const BACKLOG: i32 = 1024;

/// Binds `shards` sockets to `address`; port 0 picks a free one for all of them.
pub(crate) fn bind(address: SocketAddr, shards: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    if address.port() != 0 {
        // A shared port would let a second server of the same user bind it too and take half of the callers.
        drop(socket(address, false)?);
    }
    let first = socket(address, shards > 1)?;
    let local = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..shards {
        listeners.push(socket(local, true)?);
    }
    Ok((local, listeners))
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
