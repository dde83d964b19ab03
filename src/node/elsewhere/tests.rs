//! Where answers go, with names that lead where a test says.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn place(address: &str) -> Place {
    Place::of(address).unwrap().0
}

fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test());
}

fn post(address: String) -> Post {
    Post {
        network: Network::default(),
        address,
        action: "urn:a b".to_owned(),
        version: Version::V11,
        octets: b"<e/>".to_vec(),
    }
}

/// Takes one POST, answers with this head, and gives what came.
async fn served(listener: TcpListener, head: &str) -> String {
    answered(listener, head, "").await
}

/// The same, with an answer that has a body.
async fn answered(listener: TcpListener, head: &str, body: &str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut came = Vec::new();
    while !came.ends_with(b"<e/>") {
        assert!(stream.read_buf(&mut came).await.unwrap() > 0);
    }
    let length = body.len();
    let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(came).unwrap()
}

#[test]
fn r20_a_name_that_led_to_one_address_is_not_asked_for_again() {
    run(async || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let url = format!("http://client.invalid:{}", at.port());
        // It pretends to be elsewhere when it is looked at, and is dialled here.
        let mut elsewhere = Elsewhere::default();
        let pool = Pool::new(&url, PoolLimits::connections(1)).unwrap();
        elsewhere
            .0
            .insert(place(&url), Road::new(pool.at(vec![at])));
        let sending = elsewhere.post(post(format!("{url}/x?y=1")), drop);
        let (came, sent) = tokio::join!(served(listener, "202 Accepted"), sending);
        sent.unwrap();
        assert!(came.starts_with("POST /x?y=1 HTTP/1.1\r\n"), "{came}");
        assert!(came.contains(&format!("host: client.invalid:{}", at.port())));
        assert!(came.contains("soapaction: \"urn:a%20b\""), "{came}");
    });
}

#[test]
fn r20_a_reply_with_attachments_goes_as_what_it_is() {
    run(async || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let elsewhere = Elsewhere::find(&[place(&url)], lookup).await.unwrap();
        let package = "multipart/related; boundary=b; type=\"text/xml\"";
        let mut post = post(url);
        // Its end is the one that is waited for.
        post.octets = crate::soap::mime::whole(package, b"--b\r\n<e/>");
        let (came, sent) = tokio::join!(served(listener, "202 x"), elsewhere.post(post, drop));
        sent.unwrap();
        assert!(
            came.contains(&format!("content-type: {package}\r\n")),
            "{came}"
        );
        assert!(came.ends_with("\r\n\r\n--b\r\n<e/>"), "{came}");
    });
}

#[test]
fn wsrm_4_what_comes_back_is_handed_on_whatever_its_status() {
    run(async || {
        for (head, body) in [("200 OK", "<a/>"), ("500 x", "<f/>"), ("202 x", "")] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let elsewhere = Elsewhere::find(&[place(&url)], lookup).await.unwrap();
            let mut heard = None;
            let sending = elsewhere.post(post(url), |octets| heard = Some(octets));
            let (_, sent) = tokio::join!(answered(listener, head, body), sending);
            assert_eq!(sent.is_ok(), head != "500 x");
            assert_eq!(heard.unwrap_or_default(), body);
        }
    });
}

#[test]
fn r20_a_redirect_is_not_followed() {
    run(async || {
        let (first, second) = tokio::join!(
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)),
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        );
        let (first, second) = (first.unwrap(), second.unwrap());
        let url = format!("http://{}", first.local_addr().unwrap());
        let places = [
            place(&url),
            place(&format!("http://{}", second.local_addr().unwrap())),
        ];
        let elsewhere = Elsewhere::find(&places, lookup).await.unwrap();
        let head = format!(
            "307 x\r\nLocation: http://{}/",
            second.local_addr().unwrap()
        );
        let (_, sent) = tokio::join!(served(first, &head), elsewhere.post(post(url), drop));
        assert!(sent.unwrap_err().contains("not followed"));
        let silence = Duration::from_millis(50);
        assert!(
            tokio::time::timeout(silence, second.accept())
                .await
                .is_err()
        );
    });
}

#[test]
fn r20_a_name_must_not_lead_to_this_machine_nor_nowhere() {
    run(async || {
        let places = [place("http://client.example:80")];
        for bad in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "::1",
            "::ffff:127.0.0.1",
            "224.0.0.1",
        ] {
            let found = SocketAddr::new(bad.parse().unwrap(), 80);
            let answer = |_| std::future::ready(Ok(vec!["192.0.2.1:80".parse().unwrap(), found]));
            assert!(Elsewhere::find(&places, answer).await.is_err(), "{bad}");
        }
        let nowhere = async |_| Ok(Vec::new());
        assert!(Elsewhere::find(&places, nowhere).await.is_err());
        let found = async |_| Ok(vec!["192.0.2.1:80".parse().unwrap()]);
        let elsewhere = Elsewhere::find(&places, found).await.unwrap();
        assert!(elsewhere.allowed().has("http://client.example/x"));
        // Whoever means this machine lists its address.
        let never = async |_| -> std::io::Result<Vec<SocketAddr>> { unreachable!() };
        let here = [place("http://127.0.0.1:9"), place("http://[::1]:9")];
        assert!(Elsewhere::find(&here, never).await.is_ok());
    });
}

#[test]
fn r20_what_is_not_listed_is_not_dialled_and_not_too_much_waits() {
    run(async || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let none = Elsewhere::default();
        assert!(none.post(post(url.clone()), drop).await.is_err());
        let elsewhere = Elsewhere::find(&[place(&url)], lookup).await.unwrap();
        let from = |network: u128| Post {
            network: Network::of(0xffff << 32 | network),
            ..post(url.clone())
        };
        let mut waiting = Vec::new();
        for network in 1..=2 {
            waiting
                .extend((0..limits::FRONT_POSTS / 2).map(|_| elsewhere.post(from(network), drop)));
            let why = elsewhere.post(from(network), drop).await.unwrap_err();
            assert!(why.contains("too many"), "{why}");
        }
        let why = elsewhere.post(from(3), drop).await.unwrap_err();
        assert!(why.contains("too many"), "{why}");
        waiting.pop();
        drop(elsewhere.post(from(3), drop));
        drop(waiting);
        assert!(elsewhere.0[&place(&url)].lanes.borrow().is_empty());
    });
}

#[test]
fn r20_whose_address_hangs_keeps_back_no_answers_to_other_networks() {
    run(async || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let elsewhere = Elsewhere::find(&[place(&url)], lookup).await.unwrap();
        let from = |network: u128, path| Post {
            network: Network::of(0xffff << 32 | network),
            ..post(format!("{url}{path}"))
        };
        for _ in 0..CONNECTIONS {
            tokio::task::spawn_local(elsewhere.post(from(1, "/hangs"), drop));
        }
        let mut hang = Vec::new();
        for _ in 0..CONNECTIONS / SHARE {
            hang.push(listener.accept().await.unwrap());
        }
        let honest = elsewhere.post(from(2, "/honest"), drop);
        let (came, sent) = tokio::join!(served(listener, "202 Accepted"), honest);
        assert!(came.starts_with("POST /honest "), "{came}");
        sent.unwrap();
        drop(hang);
    });
}
