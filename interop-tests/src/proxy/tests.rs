//! The proxy between a caller and a target in one process.

use std::cell::RefCell;
use std::convert::Infallible;

use super::*;

/// A target that answers each body with its number and itself; and all bodies it got.
async fn target() -> (SocketAddr, Rc<RefCell<Vec<Bytes>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let got = Rc::new(RefCell::new(Vec::new()));
    let seen = got.clone();
    spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = seen.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let seen = seen.clone();
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    seen.borrow_mut().push(body.clone());
                    Ok::<_, Infallible>(Response::new(Full::new(body)))
                }
            });
            spawn_local(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (address, got)
}

async fn proxy(target: SocketAddr, rates: Rates, seed: u64) -> (SocketAddr, Rc<Count>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Rc::new(Count::default());
    let route = Route {
        listener,
        target,
        rates,
        seed,
    };
    spawn_local(serve(route, count.clone()));
    (address, count)
}

/// Sends `posts` bodies one after the other; tells which were answered.
async fn post_all(to: SocketAddr, posts: usize) -> Vec<bool> {
    let mut kept = None;
    let mut answered = Vec::new();
    for number in 0..posts {
        let body = Full::new(Bytes::from(number.to_string()));
        let request = Request::post("/").header("Host", "x").body(body).unwrap();
        let answer = send(request, to, &mut kept).await;
        if let Ok(answer) = &answer {
            let body = answer
                .clone()
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes();
            assert_eq!(body, number.to_string(), "an answer to another request");
        }
        answered.push(answer.is_ok());
    }
    answered
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(tokio::task::LocalSet::new().run_until(test))
}

#[test]
fn without_rates_everything_passes_on_one_connection() {
    run(async {
        let (target, got) = target().await;
        let (address, count) = proxy(target, Rates::default(), 1).await;
        assert_eq!(post_all(address, 50).await, vec![true; 50]);
        assert_eq!(got.borrow().len(), 50);
        assert_eq!((count.posts.get(), count.unreachable.get()), (50, 0));
    });
}

#[test]
fn a_lost_request_never_reaches_the_target() {
    run(async {
        let (target, got) = target().await;
        let rates = Rates {
            drop_request: 100.0,
            ..Rates::default()
        };
        let (address, count) = proxy(target, rates, 1).await;
        assert_eq!(post_all(address, 5).await, vec![false; 5]);
        assert!(got.borrow().is_empty());
        assert_eq!(count.dropped_requests.get(), 5);
    });
}

#[test]
fn a_lost_response_was_acted_upon() {
    run(async {
        let (target, got) = target().await;
        let rates = Rates {
            drop_response: 100.0,
            ..Rates::default()
        };
        let (address, count) = proxy(target, rates, 1).await;
        assert_eq!(post_all(address, 5).await, vec![false; 5]);
        assert_eq!(got.borrow().len(), 5);
        assert_eq!(count.dropped_responses.get(), 5);
    });
}

#[test]
fn the_fates_follow_from_the_seed() {
    let rates = Rates {
        drop_request: 30.0,
        drop_response: 30.0,
        ..Rates::default()
    };
    let answers = |seed| {
        run(async move {
            let (target, _) = target().await;
            let (address, _) = proxy(target, rates, seed).await;
            post_all(address, 100).await
        })
    };
    let first = answers(7);
    assert_eq!(first, answers(7));
    assert_ne!(first, answers(8));
    let passed = first.iter().filter(|answered| **answered).count();
    assert!(
        (35..65).contains(&passed),
        "{passed} of 100 passed, about 49 expected"
    );
}

#[test]
fn a_repeated_request_arrives_twice_and_is_answered_once() {
    run(async {
        let (target, got) = target().await;
        let rates = Rates {
            duplicate: 100.0,
            ..Rates::default()
        };
        let (address, count) = proxy(target, rates, 1).await;
        assert_eq!(post_all(address, 5).await, vec![true; 5]);
        while got.borrow().len() < 10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(count.duplicated.get(), 5);
    });
}

#[test]
fn a_target_that_is_down_closes_the_connection() {
    run(async {
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = unused.local_addr().unwrap();
        drop(unused);
        let (address, count) = proxy(target, Rates::default(), 1).await;
        assert_eq!(post_all(address, 2).await, vec![false; 2]);
        assert_eq!(count.unreachable.get(), 2);
    });
}

#[test]
fn other_methods_pass_unharmed() {
    run(async {
        let (target, got) = target().await;
        let rates = Rates {
            drop_request: 100.0,
            drop_response: 100.0,
            ..Rates::default()
        };
        let (address, count) = proxy(target, rates, 1).await;
        let request = Request::get("/?wsdl")
            .header("Host", "x")
            .body(Full::default())
            .unwrap();
        assert!(send(request, address, &mut None).await.is_ok());
        assert_eq!(got.borrow().len(), 1);
        assert_eq!(count.posts.get(), 0);
    });
}

#[test]
fn held_messages_are_held_within_the_bound() {
    let at_most = Duration::from_millis(20);
    let rates = Rates {
        delay: 50.0,
        delay_at_most: at_most,
        ..Rates::default()
    };
    let held: Vec<_> = (0..1_000)
        .map(|number| rates.fate(3, number).delay_request)
        .collect();
    assert!(held.iter().all(|delay| *delay <= at_most));
    let some = held.iter().filter(|delay| !delay.is_zero()).count();
    assert!(
        (400..600).contains(&some),
        "{some} of 1000 held, about 500 expected"
    );
}
