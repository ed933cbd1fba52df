//! Which process is at the other end of a local connection.
//!
//! The kernel lists every socket with its ports and inode, and every process's open files name the inodes of its
//! sockets. A connection that comes from a node is recognised so, without the node's help.

use std::fs;

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialer {
    /// The process at this place of the list.
    Process(usize),
    /// Some other process.
    Other,
    /// The socket is gone already.
    Gone,
}

/// Who owns the socket on loopback with local port `local` that is connected to port `remote`.
pub(crate) fn find(local: u16, remote: u16, processes: &[Option<u32>]) -> Dialer {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let Some(inode) = table.lines().find_map(|line| inode_of(line, local, remote)) else {
        return Dialer::Gone;
    };
    let name = format!("socket:[{inode}]");
    let owner = processes
        .iter()
        .position(|process| process.is_some_and(|process| owns(process, &name)));
    owner.map_or(Dialer::Other, Dialer::Process)
}

/// The inode in this line of the table, if the line is the wanted connection's and has one.
fn inode_of(line: &str, local: u16, remote: u16) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = |field: &str| u16::from_str_radix(field.split_once(':')?.1, 16).ok();
    let wanted = port(fields.get(1)?)? == local && port(fields.get(2)?)? == remote;
    let inode = fields.get(9)?.parse().ok()?;
    (wanted && inode != 0).then_some(inode)
}

fn owns(process: u32, socket: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return false;
    };
    let mut targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    targets.any(|target| target.as_os_str() == socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_owner_of_a_connection_is_found_among_processes_and_only_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect(("127.0.0.1", remote)).unwrap();
        let local = stream.local_addr().unwrap().port();
        let own = Some(std::process::id());
        assert_eq!(find(local, remote, &[None, own]), Dialer::Process(1));
        assert_eq!(find(local, remote, &[None]), Dialer::Other);
        assert_eq!(find(local, local, &[own]), Dialer::Gone);
    }
}
