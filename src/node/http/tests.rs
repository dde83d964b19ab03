//! Both ends against each other, and the server against peers that misbehave.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::*;
use crate::limits;
use crate::types::Micros;

const LONG: Duration = Duration::from_secs(20);

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, work);
}

fn tight() -> ServeLimits {
    ServeLimits {
        body: 1_000,
        connections: 4,
        free: 0,
        read: Duration::from_millis(100),
        ..ServeLimits::default()
    }
}

/// A server that answers with what it was sent; gives its address, counters and switch.
async fn echo(limits: ServeLimits) -> (String, Rc<Counters>, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let counters = Rc::new(Counters::default());
    let (stop, stopped) = watch::channel(false);
    tokio::task::spawn_local(serve(
        listener,
        limits,
        counters.clone(),
        stopped,
        |request| async move { Reply::new(200, SOAP12, request.body) },
    ));
    (address, counters, stop)
}

fn pool(address: &str, connections: usize) -> Pool {
    Pool::new(
        &format!("http://{address}/x"),
        PoolLimits::connections(connections),
    )
    .unwrap()
}

async fn raw(address: &str, octets: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(octets).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LONG, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

#[test]
fn r8_exchanges_share_persistent_connections() {
    run(async {
        let (address, counters, _stop) = echo(ServeLimits::default()).await;
        let pool = pool(&address, 2);
        for i in 0..20 {
            let body = Bytes::from(format!("<m>{i}</m>"));
            let sent = Outgoing::post(SOAP12, body.clone(), LONG);
            let (a, b, c) = tokio::join!(
                pool.send(sent.clone()),
                pool.send(sent.clone()),
                pool.send(sent)
            );
            for response in [a, b, c] {
                let response = response.unwrap();
                assert_eq!((response.status, response.body), (200, body.clone()));
                assert_eq!(response.content_type, SOAP12);
            }
        }
        assert_eq!(counters.requests.get(), 60);
        assert_eq!(counters.connections.get(), 2);
    });
}

#[test]
fn r21_a_failed_connect_is_told_from_a_lost_answer() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let pool = pool(&address, 1);
        let post = || pool.send(Outgoing::post(SOAP12, Bytes::from_static(b"<m/>"), LONG));
        let hang_up = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut some = [0; 16];
            let _ = stream.read(&mut some).await.unwrap();
        };
        let (answer, ()) = tokio::join!(post(), hang_up);
        assert!(!answer.unwrap_err().nothing_sent());
        drop(listener);
        assert!(post().await.unwrap_err().nothing_sent());
    });
}

#[test]
fn a_peer_that_never_answers_costs_its_time_out_and_no_connection() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = pool(&listener.local_addr().unwrap().to_string(), 1);
        let brief = Duration::from_millis(20);
        for _ in 0..2 {
            let answer = pool.send(Outgoing::post(SOAP12, Bytes::from_static(b"<m/>"), brief));
            assert!(matches!(answer.await, Err(PostError::TimedOut(..))));
        }
    });
}

#[test]
fn an_answer_that_is_whole_ends_though_its_sender_leaves_the_body_open() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = pool(&listener.local_addr().unwrap().to_string(), 1);
        let outgoing = Outgoing {
            whole: Some(|octets| octets.ends_with(b"</m>")),
            ..Outgoing::post(SOAP12, Bytes::from_static(b"<q/>"), LONG)
        };
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut some = [0; 16];
            let _ = stream.read(&mut some).await.unwrap();
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n<m>\r\n";
            stream.write_all(head).await.unwrap();
            // It is slow, and no end yet.
            tokio::time::sleep(Duration::from_millis(700)).await;
            stream.write_all(b"4\r\n</m>\r\n").await.unwrap();
            // Open until the other side closes it, which it does.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        let (answer, ()) = tokio::join!(pool.send(outgoing), serve);
        assert_eq!(answer.unwrap().body.as_ref(), b"<m></m>");
    });
}

#[test]
fn a_restarted_peer_is_reached_again() {
    run(async {
        let (address, _, stop) = echo(tight()).await;
        let pool = pool(&address, 1);
        let post = || pool.send(Outgoing::post(SOAP12, Bytes::from_static(b"<m/>"), LONG));
        assert!(post().await.is_ok());
        stop.send_replace(true);
        while post().await.is_ok() {}
        let listener = TcpListener::bind(&address).await.unwrap();
        let (_stop, stopped) = watch::channel(false);
        tokio::task::spawn_local(serve(
            listener,
            tight(),
            Rc::default(),
            stopped,
            |_| async { Reply::accepted() },
        ));
        assert_eq!(post().await.unwrap().status, 202);
    });
}

#[test]
fn a_body_over_the_bound_is_refused_declared_or_not() {
    run(async {
        let (address, counters, _stop) = echo(tight()).await;
        let declared = raw(
            &address,
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1001\r\n\r\n",
        );
        assert!(declared.await.starts_with("HTTP/1.1 413"));
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        let chunked = [
            head,
            b"3e9\r\n".to_vec(),
            vec![b'x'; 1001],
            b"\r\n".to_vec(),
        ]
        .concat();
        assert!(raw(&address, &chunked).await.starts_with("HTTP/1.1 413"));
        assert_eq!((counters.too_large.get(), counters.requests.get()), (2, 0));
    });
}

#[test]
fn a_peer_that_never_finishes_sending_is_closed() {
    run(async {
        let (address, counters, _stop) = echo(tight()).await;
        raw(&address, b"POST / HTTP/1.1\r\nhos").await;
        assert_eq!((counters.cut.get(), counters.broken.get()), (1, 0));
        let slow = raw(
            &address,
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc",
        );
        assert!(slow.await.starts_with("HTTP/1.1 408"));
        assert_eq!(counters.timed_out.get(), 1);
        let good = pool(&address, 1);
        let post = Outgoing::post(SOAP12, Bytes::from_static(b"<m/>"), LONG);
        assert_eq!(good.send(post).await.unwrap().status, 200);
    });
}

/// Sends a part of a body, and gives the connection once the server has room for it or none.
async fn begun(address: &str, octets: usize, counters: &Counters) -> TcpStream {
    let taken = counters.connections.get();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n".to_vec();
    let sent = [head, vec![b'x'; octets]].concat();
    stream.write_all(&sent).await.unwrap();
    while counters.connections.get() == taken {
        tokio::task::yield_now().await;
    }
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    let whole = tokio::time::timeout(LONG, stream.read_to_string(&mut answer));
    whole.await.unwrap().unwrap();
    answer
}

#[test]
fn bodies_that_are_not_finished_take_no_more_room_than_there_is() {
    run(async {
        let limits = ServeLimits {
            bodies: 4_000,
            connections: 100,
            read: LONG,
            ..tight()
        };
        let (address, counters, _stop) = echo(limits).await;
        let mut held = Vec::new();
        for _ in 0..12 {
            held.push(begun(&address, 999, &counters).await);
        }
        while counters.crowded.get() < 8 {
            tokio::task::yield_now().await;
        }
        let refused = answer(held.pop().unwrap()).await;
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
        // Those that hold on make way for one that comes.
        let good = pool(&address, 1);
        let answered = async {
            loop {
                let post = Outgoing::post(SOAP12, Bytes::from(vec![b'y'; 900]), LONG);
                if let Ok(response) = good.send(post).await
                    && response.status == 200
                {
                    return;
                }
            }
        };
        tokio::time::timeout(LONG / 4, answered).await.unwrap();
        assert!(answer(held.remove(0)).await.starts_with("HTTP/1.1 503"));
    });
}

/// What came at first does not count for long: a body that stalls is cut, one that is only slow is
/// not.
#[test]
fn a_body_that_stalls_is_cut_long_before_its_time_is_over() {
    run(async {
        let limits = ServeLimits {
            pace: (3, Duration::from_millis(300)),
            read: LONG * 10,
            ..tight()
        };
        let (address, counters, _stop) = echo(limits).await;
        let stalled = begun(&address, 900, &counters).await;
        let mut slow = begun(&address, 900, &counters).await;
        let rest = async {
            for _ in 0..100 {
                slow.write_all(b"y").await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let mut answer = [0; 12];
            slow.read_exact(&mut answer).await.unwrap();
            answer
        };
        let (cut, whole) = tokio::join!(answer(stalled), rest);
        assert!(cut.starts_with("HTTP/1.1 408"), "{cut}");
        assert_eq!(whole, *b"HTTP/1.1 200");
        assert_eq!((counters.slow.get(), counters.requests.get()), (1, 1));
        let named = counters.named();
        assert!(named.contains(&("slow", 1)), "{named:?}");
        assert_eq!(counters.refused_most(), [("127.0.0.1".parse().unwrap(), 1)]);
    });
}

/// Where the pot of bodies is full of strangers', small requests have room, and so has who was
/// answered before, on one address too.
#[test]
fn bodies_of_strangers_leave_room_for_small_ones_and_for_members() {
    run(async {
        let limits = ServeLimits {
            bodies: 4_000,
            kept: 1_100,
            free: 64,
            connections: 100,
            read: LONG,
            ..tight()
        };
        let (address, counters, _stop) = echo(limits).await;
        let member = pool(&address, 1);
        let post = |octets| Outgoing::post(SOAP12, Bytes::from(vec![b'y'; octets]), LONG);
        assert_eq!(member.send(post(1)).await.unwrap().status, 200);
        let mut held = Vec::new();
        while counters.crowded.get() == 0 {
            held.push(begun(&address, 999, &counters).await);
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
        let refused = counters.crowded.get();
        assert_eq!(member.send(post(1_000)).await.unwrap().status, 200);
        let small = pool(&address, 1).send(post(40)).await.unwrap();
        assert_eq!(small.status, 200);
        assert_eq!(counters.crowded.get(), refused);
    });
}

#[test]
fn a_connection_on_which_nothing_comes_gives_way_when_all_places_are_taken() {
    run(async {
        let limits = ServeLimits {
            connections: 2,
            kept: 1,
            read: LONG,
            ..tight()
        };
        let (address, counters, _stop) = echo(limits).await;
        let member = pool(&address, 1);
        let post = || Outgoing::post(SOAP12, Bytes::from_static(b"<m/>"), LONG);
        assert_eq!(member.send(post()).await.unwrap().status, 200);
        let idle = TcpStream::connect(&address).await.unwrap();
        let gone = answer(idle);
        let comes = async {
            while !matches!(pool(&address, 1).send(post()).await, Ok(reply) if reply.status == 200)
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let (gone, ()) = tokio::join!(gone, comes);
        assert_eq!((gone.as_str(), counters.displaced.get()), ("", 1));
        assert_eq!(member.send(post()).await.unwrap().status, 200);
        assert!(counters.connections.get() >= 3);
    });
}

/// A server that says such octets again and again, once it was asked something; how it ends.
async fn babbler(
    says: &'static [u8],
    begins: &'static [u8],
) -> (Result<Response, PostError>, bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = pool(&listener.local_addr().unwrap().to_string(), 1);
    let babbling = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut some = [0; 16];
        stream.read_exact(&mut some).await.unwrap();
        stream.write_all(begins).await.unwrap();
        let all = says.repeat(1_000);
        let on = async { while stream.write_all(&all).await.is_ok() {} };
        tokio::time::timeout(LONG / 4, on).await.is_ok()
    };
    let post = Outgoing::post(SOAP12, Bytes::from_static(b"<m/>"), LONG);
    tokio::join!(pool.send(post), babbling)
}

#[test]
fn a_server_that_never_comes_to_its_response_is_cut() {
    run(async {
        for (says, begins) in [
            ("HTTP/1.1 100 Continue\r\n\r\n", ""),
            ("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", ""),
            ("x-x: y\r\n", "HTTP/1.1 200 OK\r\n"),
            ("x", "HTTP/1.1 200 OK\r\nx: "),
            ("x", "HTTP/1.1 "),
        ] {
            let (answer, closed) = babbler(says.as_bytes(), begins.as_bytes()).await;
            assert!(
                matches!(answer, Err(PostError::Lost(..))),
                "{says}: {answer:?}"
            );
            assert!(closed, "{says}");
        }
    });
}

#[test]
fn a_response_after_100_continue_is_taken_and_a_long_body_after_it() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = pool(&listener.local_addr().unwrap().to_string(), 1);
        let octets = 4 * limits::HTTP_BEFORE_RESPONSE;
        let answers = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                let mut asked = Vec::new();
                while !asked.ends_with(b"<m/>") {
                    asked.push(stream.read_u8().await.unwrap());
                }
                let head = format!(
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: {octets}\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(&vec![b'z'; octets]).await.unwrap();
            }
        };
        let asks = async {
            for _ in 0..2 {
                let post = Outgoing::post(SOAP12, Bytes::from_static(b"<m/>"), LONG);
                assert_eq!(pool.send(post).await.unwrap().body.len(), octets);
            }
        };
        tokio::join!(answers, asks);
    });
}

#[test]
fn a_head_over_the_bound_is_refused() {
    run(async {
        let (address, _, _stop) = echo(tight()).await;
        let mut head = b"POST / HTTP/1.1\r\nhost: a\r\nx: ".to_vec();
        head.resize(80 << 10, b'a');
        let mut stream = TcpStream::connect(&address).await.unwrap();
        // The server may answer and close before all of it is taken.
        let _ = stream.write_all(&head).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"));
        let good = pool(&address, 1);
        let post = Outgoing::post(SOAP12, Bytes::from_static(b"<m/>"), LONG);
        assert_eq!(good.send(post).await.unwrap().status, 200);
    });
}

#[test]
fn connections_over_the_bound_are_closed_at_once() {
    run(async {
        let (address, counters, _stop) = echo(ServeLimits {
            connections: 1,
            ..tight()
        })
        .await;
        let held = pool(&address, 1);
        let post = Outgoing::post(SOAP12, Bytes::from_static(b"<m/>"), LONG);
        held.send(post).await.unwrap();
        assert_eq!(raw(&address, b"").await, "");
        assert_eq!(counters.refused.get(), 1);
    });
}

#[test]
fn a_handler_is_dropped_when_its_peer_leaves() {
    struct Guard(Option<tokio::sync::oneshot::Sender<()>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (gone, left) = tokio::sync::oneshot::channel();
        let gone = std::cell::Cell::new(Some(gone));
        let (_stop, stopped) = watch::channel(false);
        let handler = move |_| {
            let guard = Guard(gone.take());
            async move {
                let _guard = guard;
                std::future::pending().await
            }
        };
        let limits = ServeLimits::default();
        tokio::task::spawn_local(serve(listener, limits, Rc::default(), stopped, handler));
        let brief = Duration::from_millis(20);
        let post = Outgoing::post(SOAP12, Bytes::from_static(b"<m/>"), brief);
        assert!(pool(&address, 1).send(post).await.is_err());
        tokio::time::timeout(LONG, left).await.unwrap().unwrap();
    });
}

#[test]
fn what_is_no_http_url_is_refused() {
    for url in [
        "",
        "127.0.0.1:1",
        "https://a/",
        "http://",
        "ftp://a/",
        "http:///x",
        "http://a:99999/",
        "http://a:0/",
        "http://a:/",
        "http://user@a/",
        "http://user:pass@a:80/",
    ] {
        assert!(Pool::new(url, PoolLimits::connections(1)).is_err(), "{url}");
    }
    let pool = Pool::new("http://a", PoolLimits::connections(1)).unwrap();
    assert_eq!((pool.authority(), pool.target()), ("a:80", "/"));
}

/// A server that answers what comes and says nothing of closing, which it does after a while with a
/// connection on which nothing comes; gives its address and how many connections it had.
async fn terse(patience: Duration) -> (String, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let count = Rc::new(Cell::new(0));
    let counted = count.clone();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.set(counted.get() + 1);
            tokio::task::spawn_local(async move {
                let mut request = [0; 4_096];
                while let Ok(Ok(1..)) =
                    tokio::time::timeout(patience, stream.read(&mut request)).await
                {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (address, count)
}

#[test]
fn r21_a_wary_pool_uses_no_connection_again_that_its_peer_may_be_closing() {
    run(async {
        let wary = PoolLimits {
            idle: Micros::millis(50),
            wary: true,
            ..PoolLimits::connections(2)
        };
        let pool = |address: &str| Pool::new(&format!("http://{address}/x"), wary).unwrap();
        let get = || Outgoing::get("/x", LONG);
        // One that closes early: each has a connection of its own, and is answered.
        let (address, count) = terse(Duration::from_millis(10)).await;
        let hasty = pool(&address);
        for sent in 1..=20 {
            hasty.send(get()).await.unwrap();
            assert_eq!(count.get(), sent);
        }
        // One that keeps them: the first is watched, the second is used as long as it is young.
        let (address, count) = terse(LONG).await;
        let pool = pool(&address);
        for _ in 0..20 {
            pool.send(get()).await.unwrap();
        }
        assert!(count.get() < 20, "{}", count.get());
        let before = count.get();
        tokio::time::sleep(Duration::from_millis(60)).await;
        pool.send(get()).await.unwrap();
        assert_eq!(count.get(), before + 1, "too old");
    });
}
