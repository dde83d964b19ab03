//! The wrapped service's WSDL and what this leads to, for users who ask: fetched between two calls,
//! on a connection that ends with it, and kept for a while, so that no user's GET holds up calls
//! for long.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::Mutex;

use super::super::clock;
use super::super::http::{Outgoing, PostError};
use super::super::wsdl::{Home, marked};
use super::{ServiceClient, stranger};
use crate::endpoint::io::Query;
use crate::limits;
use crate::types::{Instant, Micros};

/// For one document. The next call waits meanwhile: shorter than any `deadline_ms`.
const TIMEOUT: Duration = Duration::from_secs(4);
/// So long it is waited for, with the call that is at the service.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long what came is told to whoever asks, be it that nothing came.
const KEPT: Micros = Micros::seconds(5);

/// What came when the service was asked last, for each document; the service is asked for one at a
/// time.
pub(super) type Described = Mutex<BTreeMap<Query, Kept>>;

/// What came, and when.
type Kept = (Instant, Result<Vec<u8>, String>);

fn is_fresh(kept: &Kept) -> bool {
    clock::instant() - kept.0 < KEPT
}

/// Makes a place for one more document; the WSDL's own is nobody else's.
fn place(kept: &mut BTreeMap<Query, Kept>, query: &Query) -> Result<(), String> {
    let others = |kept: &BTreeMap<Query, Kept>| kept.keys().filter(|q| !q.is_wsdl()).count();
    if query.is_wsdl() || kept.contains_key(query) || others(kept) < limits::DOCUMENTS {
        return Ok(());
    }
    kept.retain(|query, kept| query.is_wsdl() || is_fresh(kept));
    if others(kept) < limits::DOCUMENTS {
        return Ok(());
    }
    Err("too many documents were asked for at once".to_owned())
}

impl ServiceClient {
    /// A document as the service serves it, with marks for its address. Waits a while for the call
    /// that is at the service.
    ///
    /// # Errors
    /// One line.
    pub async fn describe(&self, query: &Query) -> Result<Vec<u8>, String> {
        if let Some(inside) = &self.inside {
            return match query.is_wsdl() {
                true => Ok(inside.kind.wsdl().into()),
                false => Err("a built-in service has its WSDL and nothing else".to_owned()),
            };
        }
        if self.is_strange() {
            return Err(stranger::WHO.to_owned());
        }
        let mut kept = self.described.lock().await;
        if let Some(kept) = kept.get(query).filter(|kept| is_fresh(kept)) {
            return kept.1.clone();
        }
        place(&mut kept, query)?;
        let path = self.pool.target().split('?').next().unwrap_or("/");
        let target = format!("{path}?{}", query.as_str());
        let outgoing = Outgoing {
            last: true,
            ..Outgoing::get(&target, TIMEOUT)
        };
        let asked = tokio::time::timeout(PATIENCE, self.pool.send(outgoing));
        let Ok(answer) = asked.await else {
            let kept = kept.get(query).map(|(_, described)| described.clone());
            return kept.unwrap_or_else(|| Err("the service works on a call".to_owned()));
        };
        let described = match answer {
            // It was not asked: it is as soon as it is there.
            Err(PostError::Connect(_, why)) => return Err(why),
            Err(error) => Err(error.to_string()),
            Ok(response) if response.status == 200 => {
                let authority = self.pool.authority();
                Ok(marked(&response.body, Home { authority, path }))
            }
            Ok(response) => Err(format!(
                "{target} at {} gave {}",
                self.pool.authority(),
                response.status
            )),
        };
        kept.insert(query.clone(), (clock::instant(), described.clone()));
        described
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::tests::{call, run, service};
    use super::*;
    use crate::endpoint::io::Completion;
    use crate::node::report::Report;
    use crate::soap::envelope::Version;

    /// The head of the next request, whose body is dropped; empty when the peer hung up.
    async fn head(stream: &mut TcpStream) -> String {
        let mut came = Vec::new();
        while !came.windows(4).any(|four| four == b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(octet) => came.push(octet),
                Err(_) => return String::new(),
            }
        }
        let head = String::from_utf8(came).unwrap().to_ascii_lowercase();
        if head.starts_with("post") {
            let body = &mut [0; b"<e/>".len()];
            stream.read_exact(body).await.unwrap();
        }
        head
    }

    /// A service of one thread that leaves each connection open, and takes the next one only when
    /// its client has hung up; it notes what it was asked.
    async fn single_threaded(listener: TcpListener, asked: Rc<RefCell<Vec<String>>>) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            loop {
                let head = head(&mut stream).await;
                if head.is_empty() {
                    break;
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n<w/>";
                stream.write_all(answer).await.unwrap();
                asked.borrow_mut().push(head);
            }
        }
    }

    /// Far above what all takes, below what waits for a connection that nobody reads.
    const LONG: Duration = Duration::from_secs(3);

    fn with_single_threaded(work: impl AsyncFnOnce(ServiceClient, Rc<RefCell<Vec<String>>>)) {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (client, asked) = (service(&listener), Rc::<RefCell<Vec<_>>>::default());
            tokio::task::spawn_local(single_threaded(listener, asked.clone()));
            let done = tokio::time::timeout(LONG, work(client, asked)).await;
            done.expect("it was given two connections at once");
        });
    }

    fn is_answer(done: &Completion) -> bool {
        matches!(done, Completion::Reply { status: 200, .. })
    }

    #[test]
    fn r21_who_asks_for_the_wsdl_and_calls_share_one_connection() {
        with_single_threaded(async |client, asked| {
            let (report, wsdl) = (Report::default(), Query::wsdl());
            let execute = || client.execute(call(Version::V12), &report);
            let (done, described) = tokio::join!(execute(), client.describe(&wsdl));
            assert!(is_answer(&done) && described.is_ok());
            client.described.lock().await.clear();
            let (described, done) = tokio::join!(client.describe(&wsdl), execute());
            assert!(is_answer(&done) && described.is_ok());
            for head in &*asked.borrow() {
                let last = head.contains("connection: close");
                assert_eq!(head.starts_with("get /calc?wsdl "), last, "{head}");
            }
        });
    }

    #[test]
    fn r21_a_look_at_the_service_leaves_it_no_other_connection() {
        with_single_threaded(async |client, _| {
            let report = Report::default();
            assert!(is_answer(
                &client.execute(call(Version::V12), &report).await
            ));
            client.probe(&report).await;
            // Somebody else is served, though no call follows.
            let mut other = TcpStream::connect(client.pool.authority()).await.unwrap();
            other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            other.read_u8().await.unwrap();
        });
    }

    #[test]
    fn the_wsdl_is_fetched_once_for_many_who_ask() {
        with_single_threaded(async |client, asked| {
            let wsdl = Query::wsdl();
            let (one, two) = tokio::join!(client.describe(&wsdl), client.describe(&wsdl));
            assert!(one.is_ok() && one == two && one == client.describe(&wsdl).await);
            assert_eq!(asked.borrow().len(), 1);
        });
    }

    #[test]
    fn who_asks_for_more_and_more_documents_has_the_service_asked_for_so_many() {
        with_single_threaded(async |client, asked| {
            let named = |n: usize| Query::of(&format!("xsd={n}")).unwrap();
            for n in 0..limits::DOCUMENTS {
                assert!(client.describe(&named(n)).await.is_ok());
            }
            let last = asked.borrow().last().cloned().unwrap();
            assert!(last.starts_with("get /calc?xsd=63 "), "{last}");
            let more = named(limits::DOCUMENTS);
            let why = client.describe(&more).await.unwrap_err();
            assert!(why.contains("too many"), "{why}");
            // What is kept is told, and the WSDL itself has its place.
            assert!(client.describe(&named(0)).await.is_ok());
            assert!(client.describe(&Query::wsdl()).await.is_ok());
            assert_eq!(asked.borrow().len(), limits::DOCUMENTS + 1);
            for kept in client.described.lock().await.values_mut() {
                kept.0 = Instant(0);
            }
            assert!(client.describe(&more).await.is_ok());
            assert_eq!(client.described.lock().await.len(), 2);
        });
    }
}
