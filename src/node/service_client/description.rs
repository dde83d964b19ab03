//! The wrapped service's WSDL and what this leads to, for users who ask: fetched between two calls,
//! on a connection that ends with it, and kept for a while, so that no user's GET holds up calls
//! for long. Nobody has the service asked for a document to which none of its own leads.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::Mutex;

use super::super::clock;
use super::super::http::{Outgoing, PostError};
use super::super::wsdl::{Home, leads_to, marked};
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

/// The service is asked for one document at a time.
pub(super) type Described = Mutex<Documents>;

/// What came when the service was asked last, and when.
#[derive(Debug)]
struct Kept {
    came: Instant,
    described: Result<Vec<u8>, String>,
}

impl Kept {
    fn is_fresh(&self) -> bool {
        clock::instant() - self.came < KEPT
    }

    fn octets(&self) -> usize {
        self.described.as_ref().map_or_else(String::len, Vec::len)
    }
}

/// The service's documents, as far as somebody asked for them.
#[derive(Debug, Default)]
pub(super) struct Documents {
    kept: BTreeMap<Query, Kept>,
    /// What they lead to, or led to before, and whether it was asked for; at most
    /// [`limits::DOCUMENTS`].
    known: BTreeMap<Query, bool>,
}

impl Documents {
    fn fresh(&self, query: &Query) -> Option<&Kept> {
        self.kept.get(query).filter(|kept| kept.is_fresh())
    }

    /// Whether the service may be asked for it.
    fn leads_to(&self, query: &Query) -> bool {
        query.is_wsdl() || self.known.contains_key(query)
    }

    /// The first that nobody asked for yet: it may lead to more.
    fn unread(&self) -> Option<Query> {
        let mut unread = self.known.iter().filter(|(_, asked)| !**asked);
        unread.next().map(|(query, _)| query.clone())
    }

    fn keep(&mut self, query: &Query, described: Result<Vec<u8>, String>) {
        for led_to in described.iter().flat_map(|document| leads_to(document)) {
            if self.known.len() < limits::DOCUMENTS.0 {
                self.known.entry(led_to).or_default();
            }
        }
        if let Some(asked) = self.known.get_mut(query) {
            *asked = true;
        }
        let came = clock::instant();
        self.kept.insert(query.clone(), Kept { came, described });
        while self.kept.values().map(Kept::octets).sum::<usize>() > limits::DOCUMENTS.1 {
            let others = self.kept.iter().filter(|(other, _)| *other != query);
            let Some((first, _)) = others.min_by_key(|(_, kept)| kept.came) else {
                return;
            };
            let first = first.clone();
            self.kept.remove(&first);
        }
    }
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
        let mut documents = self.described.lock().await;
        if !documents.leads_to(query) {
            self.find(&mut documents, query).await?;
        }
        if !documents.leads_to(query) {
            return Err(format!(
                "nothing at {} leads to ?{}",
                self.pool.authority(),
                query.as_str()
            ));
        }
        self.ask(&mut documents, query).await
    }

    /// Looks for what leads to a document: whoever asks may have it from one that another life of
    /// this replica showed. The WSDL is asked for as by who wants it, all others once.
    async fn find(&self, documents: &mut Documents, query: &Query) -> Result<(), String> {
        let begun = clock::instant();
        self.ask(documents, &Query::wsdl()).await?;
        while !documents.leads_to(query) && clock::duration(clock::instant() - begun) < PATIENCE {
            let Some(unread) = documents.unread() else {
                break;
            };
            let said = self.ask(documents, &unread).await;
            if documents.unread().as_ref() == Some(&unread) {
                // The service was not asked.
                return said.map(drop);
            }
        }
        Ok(())
    }

    async fn ask(&self, documents: &mut Documents, query: &Query) -> Result<Vec<u8>, String> {
        if let Some(kept) = documents.fresh(query) {
            return kept.described.clone();
        }
        let path = self.pool.target().split('?').next().unwrap_or("/");
        let target = format!("{path}?{}", query.as_str());
        let outgoing = Outgoing {
            last: true,
            ..Outgoing::get(&target, TIMEOUT)
        };
        let asked = tokio::time::timeout(PATIENCE, self.pool.send(outgoing));
        let Ok(answer) = asked.await else {
            let kept = documents.kept.get(query);
            let kept = kept.map(|kept| kept.described.clone());
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
        documents.keep(query, described.clone());
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
    use crate::endpoint::io::{ADDRESS_MARK, Completion};
    use crate::node::report::Report;
    use crate::node::wsdl::WSDL;
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
                let imports = |what| format!("<d xmlns='{WSDL}'><import location='?{what}'/></d>");
                let document = match head.split(['?', ' ']).nth(2) {
                    Some("wsdl") => imports("wsdl=1"),
                    Some("wsdl=1") => imports("xsd=1"),
                    _ => "<w/>".to_owned(),
                };
                let length = document.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{document}");
                stream.write_all(answer.as_bytes()).await.unwrap();
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
            client.described.lock().await.kept.clear();
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
    fn nobody_has_a_service_asked_for_what_none_of_its_documents_leads_to() {
        with_single_threaded(async |client, asked| {
            let named = |n: usize| Query::of(&format!("xsd={n}")).unwrap();
            let other = Query::of("xsd=0").unwrap();
            let away = Err("it is not ready".to_owned());
            client.described.lock().await.keep(&other, away);
            for n in 2..2 * limits::DOCUMENTS.0 {
                let why = client.describe(&named(n)).await.unwrap_err();
                assert!(why.contains("leads to ?xsd="), "{why}");
            }
            assert!(client.describe(&named(1)).await.is_ok());
            // What leads to it was fetched once.
            let asked = asked.borrow();
            let targets: Vec<_> = asked.iter().filter_map(|h| h.split(' ').nth(1)).collect();
            assert_eq!(targets, ["/calc?wsdl", "/calc?wsdl=1", "/calc?xsd=1"]);
        });
    }

    #[test]
    fn what_is_kept_of_a_services_documents_is_bounded() {
        let mut documents = Documents::default();
        let query = |n: usize| Query::of(&format!("xsd={n}")).unwrap();
        let large = vec![b'x'; limits::DOCUMENTS.1 / 3];
        for n in 0..4 {
            documents.keep(&query(n), Ok(large.clone()));
            assert!(documents.fresh(&query(n)).is_some() && documents.kept.len() <= 3);
        }
        let names = (0..2 * limits::DOCUMENTS.0).map(|n| format!("'{ADDRESS_MARK}?xsd={n}'"));
        documents.keep(&query(4), Ok(names.collect::<String>().into_bytes()));
        assert_eq!(documents.known.len(), limits::DOCUMENTS.0);
    }
}
