//! Roads between the members of a group that can be cut, or made long: a network that splits, and a
//! member that takes its time.
//!
//! One road leads from each replica to each other one, and one from the gateway to each replica.
//! Octets pass as they come. A road that is cut breaks the connections on it and takes new ones
//! only to close them, until it is joined again. On a long one, requests take a while.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Who starts on a road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A replica.
    Replica(usize),
    /// The gateway, and whoever else uses the group's own file.
    Gateway,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    cut: bool,
    /// How long what starts here is under way.
    takes: Duration,
}

#[derive(Debug)]
struct Road {
    from: Start,
    to: usize,
    listen: SocketAddr,
    state: watch::Sender<State>,
}

/// All roads of one group; they end with it.
#[derive(Debug)]
pub struct Roads {
    roads: Vec<Road>,
    /// The runtime's thread ends when this is dropped.
    _over: tokio::sync::oneshot::Sender<()>,
}

impl Roads {
    /// Builds the roads to these replicas.
    ///
    /// # Errors
    /// If there is no port to listen on.
    pub fn start(replicas: &[SocketAddr]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut roads = Vec::new();
        let starts = (0..replicas.len()).map(Start::Replica);
        for from in starts.chain([Start::Gateway]) {
            for (to, target) in replicas.iter().enumerate() {
                if from == Start::Replica(to) {
                    continue;
                }
                let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
                let listener = runtime.block_on(bound)?;
                let listen = listener.local_addr()?;
                let (state, seen) = watch::channel(State::default());
                runtime.spawn(serve(listener, *target, seen));
                roads.push(Road {
                    from,
                    to,
                    listen,
                    state,
                });
            }
        }
        let (over, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || drop(runtime.block_on(ended)));
        Ok(Self { roads, _over: over })
    }

    /// Cuts off what passes between two sides: the replicas named here, and all other members.
    pub fn split(&self, side: &[usize]) {
        let in_side = |member: Start| matches!(member, Start::Replica(id) if side.contains(&id));
        for road in &self.roads {
            let apart = in_side(road.from) != in_side(Start::Replica(road.to));
            road.state.send_modify(|state| state.cut = apart);
        }
    }

    /// From now on what a replica says to another is so long under way; answers are not.
    pub fn delay(&self, replica: usize, takes: Duration) {
        let from = Start::Replica(replica);
        for road in self.roads.iter().filter(|road| road.from == from) {
            road.state.send_modify(|state| state.takes = takes);
        }
    }

    /// All roads are whole again.
    pub fn join(&self) {
        self.split(&[]);
    }

    /// Writes, beside the group file, one for each replica whose addresses are its roads, and has
    /// every member use its own. The gateway's is the group file itself.
    ///
    /// # Errors
    /// If a file is not as `bftws init` writes it.
    pub fn bend(&self, out: &Path, replicas: &[SocketAddr]) -> Result<()> {
        let whole = std::fs::read_to_string(out.join("group.toml"))?;
        let starts = (0..replicas.len()).map(Start::Replica);
        for start in starts.chain([Start::Gateway]) {
            let mut text = whole.clone();
            for road in self.roads.iter().filter(|road| road.from == start) {
                let own = replicas.get(road.to).context("no such replica")?;
                let (from, to) = (
                    format!("\"http://{own}"),
                    format!("\"http://{}", road.listen),
                );
                ensure!(text.contains(&from), "the group file does not name {own}");
                text = text.replace(&from, &to);
            }
            let Start::Replica(id) = start else {
                std::fs::write(out.join("group.toml"), text)?;
                continue;
            };
            let name = format!("group-of-{id}.toml");
            std::fs::write(out.join(&name), text)?;
            let file = out.join(format!("replica-{id}.toml"));
            let text = std::fs::read_to_string(&file)?;
            let (from, to) = ("group = \"group.toml\"", format!("group = \"{name}\""));
            ensure!(text.contains(from), "{} lacks {from}", file.display());
            std::fs::write(&file, text.replace(from, &to))?;
        }
        Ok(())
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, state: watch::Receiver<State>) {
    loop {
        let Ok((near, _)) = listener.accept().await else {
            // The caller went away while it waited in the queue.
            continue;
        };
        if state.borrow().cut {
            continue;
        }
        tokio::spawn(carry(near, target, state.clone()));
    }
}

async fn carry(mut near: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let Ok(mut far) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near, mut back) = near.split();
    let (mut answers, far) = far.split();
    let seen = state.clone();
    tokio::select! {
        _ = forward(near, far, &seen) => {}
        _ = copy(&mut answers, &mut back) => {}
        _ = state.wait_for(|state| state.cut) => {}
    }
}

/// Carries octets one way, each as long as the road is when it sets out.
async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    state: &watch::Receiver<State>,
) -> std::io::Result<()> {
    let mut octets = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut octets).await?;
        if read == 0 {
            return Ok(());
        }
        let takes = state.borrow().takes;
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        to.write_all(&octets[..read]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn echoes(road: SocketAddr) -> bool {
        let Ok(mut stream) = std::net::TcpStream::connect(road) else {
            return false;
        };
        let mut answer = [0; 2];
        stream.write_all(b"hi").is_ok() && stream.read_exact(&mut answer).is_ok()
    }

    #[test]
    fn a_split_cuts_what_passes_between_its_sides_and_nothing_else() {
        let servers = (0..3).map(|_| {
            let server = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = server.local_addr().unwrap();
            std::thread::spawn(move || {
                for stream in server.incoming().map_while(Result::ok) {
                    let mut octets = [0; 2];
                    let mut stream = stream;
                    let _ = stream.read_exact(&mut octets);
                    let _ = stream.write_all(&octets);
                }
            });
            address
        });
        let servers: Vec<_> = servers.collect();
        let roads = Roads::start(&servers).unwrap();
        let passes = |from, to| {
            let mut all = roads.roads.iter();
            let road = all.find(|road| road.from == from && road.to == to);
            echoes(road.unwrap().listen)
        };
        assert!(passes(Start::Replica(0), 1) && passes(Start::Gateway, 2));
        roads.split(&[0, 2]);
        assert!(passes(Start::Replica(0), 2) && passes(Start::Gateway, 1));
        assert!(!passes(Start::Replica(0), 1) && !passes(Start::Replica(1), 2));
        assert!(!passes(Start::Gateway, 2));
        roads.join();
        assert!(passes(Start::Replica(0), 1) && passes(Start::Gateway, 2));
        roads.delay(0, Duration::from_millis(200));
        let start = std::time::Instant::now();
        assert!(passes(Start::Replica(0), 1));
        assert!(start.elapsed() >= Duration::from_millis(200));
    }
}
