//! The total-order invoker of a replica: executes what is ordered, in order and exactly once
//! (Zhao 2007; R1, R13, R16).
//!
//! It walks batches, bundles and items, asks the table of calls what each item needs, hands one
//! call at a time to the application and gives every reply its canonical form. The application's
//! work is an effect: while it lasts, nothing here waits. When the application's answer is lost,
//! the call stays open until it is decided elsewhere that the group closes it (R14), or that this
//! replica's state is lost with it (R21).

use std::collections::VecDeque;
use std::rc::Rc;

use crate::crypto;
use crate::limits;
use crate::pbft::Delivery;
use crate::soap::addressing;
use crate::soap::c14n::PrefixList;
use crate::soap::envelope::{self, Envelope, Version};
use crate::soap::fault::{Code, Fault};
use crate::soap::mime;
use crate::soap::normal;
use crate::soap::payload::{self, Packed};
use crate::soap::references::References;
use crate::soap::xml::{Bounds, Document, Element};
use crate::state::calls::{Calls, Done, Step, Stored, Verdict, Wanted};
use crate::types::{Digest, Env, Seqno, Time};
use crate::wire;
use crate::wire::bundle::{Call, Item};
use crate::wire::ended::Place;
use crate::wire::reply::{Composed, Replies};

use super::hop;
use super::io::{Completion, Invocation, Ticket};
use super::out_handler::PREFIXES;
use super::storage_manager::{Body, StorageManager};

/// What comes next.
#[derive(Debug)]
pub enum Progress {
    /// Nothing until something is delivered or executed.
    Idle,
    /// Execute this on the application.
    Execute(Ticket, Invocation),
    /// A bundle is finished; its replies may leave. With it the gravest of its calls' verdicts.
    Bundle(Rc<Body>, Composed, Verdict),
    /// A batch is finished, which had this virtual time.
    Batch(Seqno, Time),
}

#[derive(Debug)]
struct Running {
    delivery: Delivery,
    bundle: usize,
    items: Vec<Done>,
    /// Octets and XML nodes of their replies.
    bytes: usize,
    nodes: usize,
    prefixes: PrefixList,
    /// The application works on the item that follows `items`.
    ticket: Option<Ticket>,
}

impl Running {
    fn of(delivery: Delivery) -> Self {
        Self {
            delivery,
            bundle: 0,
            items: Vec::new(),
            bytes: 0,
            nodes: 0,
            prefixes: PrefixList::new(),
            ticket: None,
        }
    }

    /// Ends an item. A reply with which the bundle's answer would be over the bounds of any reader
    /// is left out of the answer, the same at every replica; it stays in the table of calls.
    fn push(&mut self, done: Done) {
        let (bytes, nodes) = match &done {
            Done::Call(_, _, _, Some(reply)) => (reply.len(), reply.nodes()),
            _ => (0, 0),
        };
        let mut prefixes = self.prefixes.clone();
        if let Done::Call(_, _, _, Some(reply)) = &done {
            prefixes.extend(&reply.header().prefixes);
            prefixes.extend(&reply.payload().prefixes);
        }
        let fits = self.bytes + bytes <= limits::BUNDLE_BYTES
            && self.nodes + nodes <= limits::XML_NODES / 2
            && prefixes.len() <= limits::XML_NAMESPACES;
        if fits {
            self.bytes += bytes;
            self.nodes += nodes;
            self.prefixes = prefixes;
            self.items.push(done);
        } else {
            self.items.push(done.without_reply());
        }
    }
}

/// Executes in order.
#[derive(Debug)]
pub struct TotalOrderInvoker {
    calls: Calls,
    secret: [u8; 32],
    queue: VecDeque<Delivery>,
    running: Option<Running>,
    tickets: u64,
    halted: bool,
    /// The application works on this one, whether or not its answer is wanted any more.
    busy: Option<Ticket>,
}

impl TotalOrderInvoker {
    /// Before the first batch. The secret makes the seeds of batches (R16).
    #[must_use]
    pub fn new(secret: [u8; 32], calls: Calls) -> Self {
        Self {
            calls,
            secret,
            queue: VecDeque::new(),
            running: None,
            tickets: 0,
            halted: false,
            busy: None,
        }
    }

    /// The table of calls.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// The checkpoint after the last batch is settled, see [`Calls::settle`].
    pub fn settle(&mut self, split: &[u32]) {
        self.calls.settle(split);
    }

    /// Queues a batch behind those delivered before.
    pub fn deliver(&mut self, delivery: Delivery) {
        if !self.halted {
            self.queue.push_back(delivery);
        }
    }

    /// Executes no more: this replica's state is not that of the group (R19, R21).
    pub fn halt(&mut self) {
        self.halted = true;
        self.queue.clear();
        self.running = None;
    }

    /// Whether the application works on a call.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.busy.is_some()
    }

    /// Goes on from a state of the group that was installed: with this table of calls.
    pub fn install(&mut self, calls: Calls) {
        assert!(
            self.busy.is_none(),
            "the application rests while it is restored"
        );
        self.calls = calls;
        self.halted = false;
    }

    /// Whether it has halted.
    #[must_use]
    pub fn halted(&self) -> bool {
        self.halted
    }

    /// Whether a bundle is ordered and not finished.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        let running = self.running.iter().map(|running| &running.delivery);
        self.queue
            .iter()
            .chain(running)
            .any(|delivery| delivery.bundles.contains(digest))
    }

    /// Goes on until the application is needed or there is nothing to do.
    pub fn step(&mut self, storage: &StorageManager) -> Progress {
        if self.running.is_none() {
            let Some(delivery) = self.queue.pop_front() else {
                return Progress::Idle;
            };
            // A null batch's time is not of this world, and nothing begins in it.
            if !delivery.bundles.is_empty() {
                self.calls.live(delivery.time);
            }
            self.running = Some(Running::of(delivery));
        }
        let Some(mut running) = self.running.take() else {
            return Progress::Idle;
        };
        if running.ticket.is_some() {
            self.running = Some(running);
            return Progress::Idle;
        }
        loop {
            let Some(digest) = running.delivery.bundles.get(running.bundle) else {
                return Progress::Batch(running.delivery.seqno, running.delivery.time);
            };
            // Agreement delivers only what is held, and releases nothing that is not executed.
            let Some(body) = storage.get(digest).cloned() else {
                unreachable!("a delivered bundle's body is held");
            };
            if running.items.is_empty() && self.calls.repeats(&body.seen()) {
                running.bundle += 1;
                continue;
            }
            let progress = self.bundle(&mut running, body);
            self.running = Some(running);
            return progress;
        }
    }

    /// Goes on with one bundle.
    fn bundle(&mut self, running: &mut Running, body: Rc<Body>) -> Progress {
        let seqno = running.delivery.seqno;
        if running.items.is_empty() {
            match self.calls.refusal(&body.seen()) {
                Some(verdict) => {
                    running.items = body.wanted.iter().map(|w| refused(w, verdict)).collect();
                }
                None => self.calls.release(&body.seen()),
            }
        }
        while let Some(wanted) = body.wanted.get(running.items.len()) {
            match self.calls.step(body.bundle.head.client, wanted, seqno) {
                Step::Done(done) => running.push(done),
                Step::Execute => {
                    let Some(Item::Call(call)) = body.bundle.items.get(running.items.len()) else {
                        unreachable!("only a call's step is Execute");
                    };
                    if call.action == wire::NULL || hop::holds_no_call(&call.payload) {
                        let client = body.bundle.head.client;
                        let done = self.calls.executed(client, wanted, Some(nothing()));
                        running.push(done);
                        continue;
                    }
                    self.tickets += 1;
                    let ticket = Ticket(self.tickets);
                    running.ticket = Some(ticket);
                    self.busy = Some(ticket);
                    let env = self.env(&running.delivery);
                    let place = self.calls.give();
                    let message_id = hop::name(body.bundle.head.group, "call", place);
                    let invocation = invocation(call, env, place, &message_id);
                    return Progress::Execute(ticket, invocation);
                }
            }
        }
        let items = std::mem::take(&mut running.items);
        (running.bytes, running.nodes) = (0, 0);
        running.prefixes = PrefixList::new();
        let replies = Replies {
            bundle: body.digest,
            seqno,
            items,
            doubt: self.calls.doubt(),
        };
        let composed = replies.compose();
        let worst = gravest(&replies.items);
        self.calls
            .finish(&body.seen(), seqno, replies.items, composed.digest);
        running.bundle += 1;
        Progress::Bundle(body, composed, worst)
    }

    fn env(&self, delivery: &Delivery) -> Env {
        let seed = crypto::hmac_seed(&self.secret, delivery.seqno, &delivery.digest);
        Env {
            time: delivery.time,
            seed,
        }
    }

    /// Takes the application's answer.
    ///
    /// # Errors
    /// The answer is lost, and the call stays open: why.
    pub fn executed(
        &mut self,
        ticket: Ticket,
        completion: Completion,
        storage: &StorageManager,
    ) -> Result<(), String> {
        self.busy = self.busy.filter(|busy| *busy != ticket);
        if !self.awaits(ticket) {
            return Ok(());
        }
        let (status, octets) = match completion {
            Completion::Reply { status, octets } => (status, octets),
            Completion::Lost(why) => return Err(why),
            Completion::Unsent(_) => unreachable!("it is given to the application again"),
        };
        self.end(storage, |call| Some(stored(call.version, status, &octets)));
        Ok(())
    }

    /// The open call ends without an answer (R14).
    pub fn close(&mut self, storage: &StorageManager) {
        self.end(storage, |_| None);
    }

    fn end(&mut self, storage: &StorageManager, reply: impl FnOnce(&Call) -> Option<Stored>) {
        let Some((body, index)) = self.called(storage) else {
            return;
        };
        let (Some(wanted), Some(Item::Call(call))) =
            (body.wanted.get(index), body.bundle.items.get(index))
        else {
            unreachable!("only a call is executed");
        };
        let client = body.bundle.head.client;
        let done = self.calls.executed(client, wanted, reply(call));
        if let Some(running) = &mut self.running {
            running.ticket = None;
            running.push(done);
        }
    }

    /// The call that the application was given and that has not ended: its bundle, its place there.
    fn called(&self, storage: &StorageManager) -> Option<(Rc<Body>, usize)> {
        let running = self.running.as_ref().filter(|r| r.ticket.is_some())?;
        let Some(body) = self.current().and_then(|digest| storage.get(&digest)) else {
            unreachable!("a running bundle's body is held");
        };
        Some((body.clone(), running.items.len()))
    }

    /// The name of that call.
    #[must_use]
    pub fn open_call(&self, storage: &StorageManager) -> Option<Place> {
        let seqno = self.seqno()?;
        let (body, index) = self.called(storage)?;
        match *body.wanted.get(index)? {
            Wanted::Call(sequence, number, digest) => Some(Place {
                seqno,
                client: body.bundle.head.client,
                sequence,
                number,
                digest,
            }),
            Wanted::Begin(..) | Wanted::Close(..) | Wanted::End(_) => None,
        }
    }

    /// The batch that is being executed.
    #[must_use]
    pub fn seqno(&self) -> Option<Seqno> {
        self.running.as_ref().map(|running| running.delivery.seqno)
    }

    /// Whether the application works on the call of that ticket.
    #[must_use]
    pub fn awaits(&self, ticket: Ticket) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.ticket == Some(ticket))
    }

    /// The call of that ticket is at the application from now on, or not yet.
    pub fn at_application(&mut self, ticket: Ticket, there: bool) {
        self.busy = Some(ticket).filter(|_| there);
    }

    /// Whether the next step ends a bundle.
    #[must_use]
    pub fn is_at_the_end(&self, storage: &StorageManager) -> bool {
        let Some((running, digest)) = self.running.as_ref().zip(self.current()) else {
            return false;
        };
        let items = storage.get(&digest).map(|body| body.wanted.len());
        items.is_none_or(|items| running.items.len() >= items)
    }

    /// The bundle that is being executed.
    #[must_use]
    pub fn current(&self) -> Option<Digest> {
        let running = self.running.as_ref()?;
        running.delivery.bundles.get(running.bundle).copied()
    }
}

/// The gravest of the calls' verdicts, in the order of their declaration.
#[must_use]
pub fn gravest(items: &[Done]) -> Verdict {
    let verdicts = items.iter().filter_map(|done| match done {
        Done::Call(_, _, verdict, _) => Some(*verdict),
        _ => None,
    });
    let grave = |verdict: &Verdict| {
        !matches!(
            verdict,
            Verdict::Executed | Verdict::Released | Verdict::Unknown
        )
    };
    verdicts.filter(grave).min().unwrap_or(Verdict::Executed)
}

/// How the item of a bundle ends that is a no-op whole (R1).
fn refused(wanted: &Wanted, verdict: Verdict) -> Done {
    match *wanted {
        Wanted::Begin(sequence, _) | Wanted::Close(sequence, _) | Wanted::End(sequence) => {
            Done::NotBegun(sequence)
        }
        Wanted::Call(sequence, number, _) => Done::Call(sequence, number, verdict, None),
    }
}

/// The envelope that the service gets: the same octets at every correct replica (R3).
fn invocation(call: &Call, env: Env, place: u64, message_id: &str) -> Invocation {
    let header = hop::for_service(&call.header, message_id);
    let envelope = envelope::of(call.version, &header, &call.payload);
    Invocation {
        version: call.version,
        action: call.action.clone(),
        envelope: wire::parts::join(call.version, &call.action, envelope, &call.parts),
        env,
        place,
        again: false,
    }
}

/// The form of a service's answer that is stored, voted and delivered (R13). What is no envelope
/// is told as a fault that names the HTTP status: the same at every replica whose service gave the
/// same answer.
fn stored(version: Version, status: u16, octets: &[u8]) -> Stored {
    if octets.is_empty() && (200..300).contains(&status) {
        return nothing();
    }
    read_reply(version, octets).unwrap_or_else(|| {
        let other = match status {
            415 => "; it may speak the other version of SOAP (`bftws call` takes --soap)",
            _ => "",
        };
        let why = format!(
            "the service answered with HTTP status {status} and no SOAP {} envelope that can be \
             carried{other}",
            version.name()
        );
        let octets = Fault::new(Code::Receiver, why).write(version);
        let packed = Document::parse(&octets).map(|d| payload::pack(d.root()));
        Stored::new(true, Packed::default(), packed.unwrap_or_default())
    })
}

/// The reply of what answers nothing: a one-way operation, a call that does nothing (R20).
fn nothing() -> Stored {
    Stored::new(false, Packed::default(), Packed::default())
}

/// The name that each copy's stack draws for its own reply (WS-Addressing §3.1): no two are equal,
/// and nobody asks for it, so it goes no further (R13).
fn is_name(block: Element<'_, '_>) -> bool {
    block.local() == "MessageID" && addressing::by_namespace(block.ns()).is_some()
}

fn read_reply(version: Version, octets: &[u8]) -> Option<Stored> {
    let (octets, package) = mime::open(octets).ok()?;
    let document = Document::parse_within(octets, &Bounds::CALL).ok()?;
    let envelope = Envelope::read(&document).ok()?;
    if envelope.version != version {
        return None;
    }
    let mut references = package.as_ref().map(References::to).unwrap_or_default();
    let blocks = || envelope.blocks.iter().copied().filter(|b| !is_name(*b));
    for element in blocks().chain(envelope.body.children()) {
        references.visit(element);
    }
    let mut header = Packed::default();
    for block in blocks() {
        header.join(normal::normalize_within(block, &references).ok()?);
        if header.octets.len() > limits::CALL_BYTES {
            return None;
        }
    }
    let mut children = envelope.body.children();
    let child = children.next();
    if children.next().is_some() {
        return None;
    }
    let fault = child.is_some_and(|p| p.is(version.ns(), "Fault"));
    let payload = child
        .map(|child| normal::normalize_within(child, &references))
        .transpose()
        .ok()?
        .unwrap_or_default();
    let mut prefixes = header.prefixes.clone();
    prefixes.extend(&payload.prefixes);
    if prefixes.len() > PREFIXES {
        return None;
    }
    let package = package.map(|package| references.normal(package, version));
    let parts = package.as_ref().map(wire::parts::pack).unwrap_or_default();
    let reply = Stored::with_parts(fault, header, payload, parts);
    (reply.len() <= limits::CALL_BYTES).then_some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::out_handler::{Content, freeze};
    use crate::soap::mime::{Package, Part};
    use crate::soap::namespaces::SOAP11;
    use crate::types::{CallNumber, Time};

    fn first_call(content: Content) -> Call {
        Call {
            sequence: uuid::Uuid::nil(),
            number: CallNumber(1),
            version: Version::V11,
            action: String::new(),
            header: content.header.octets,
            payload: content.payload.octets,
            parts: content.parts.octets,
        }
    }

    fn reply(header: &str, payload: &str) -> Stored {
        let ns = SOAP11.uri;
        let envelope = format!(
            "<e:Envelope xmlns:e='{ns}'><e:Header>{header}</e:Header><e:Body>{payload}</e:Body>\
             </e:Envelope>"
        );
        stored(Version::V11, 200, envelope.as_bytes())
    }

    #[test]
    fn a_service_of_another_version_of_soap_is_told_as_one() {
        let said = |status| {
            let fault = stored(Version::V12, status, b"no envelope");
            assert!(fault.fault());
            String::from_utf8_lossy(&fault.payload().octets).into_owned()
        };
        let is_told = |status| said(status).contains("--soap");
        assert!(is_told(415) && !is_told(500));
    }

    #[test]
    fn r13_the_name_that_a_copy_draws_for_its_reply_is_no_part_of_it() {
        for wsa in [addressing::V200508.ns.uri, addressing::V200408.ns.uri] {
            let of = |id: &str| {
                let header = format!(
                    "<a:Action xmlns:a='{wsa}'>urn:x</a:Action><a:MessageID xmlns:a='{wsa}'>{id}\
                     </a:MessageID>"
                );
                reply(&header, "<r/>")
            };
            let (one, other) = (of("urn:uuid:1"), of("urn:uuid:2"));
            assert_eq!(one, other);
            let header = String::from_utf8_lossy(&one.header().octets).into_owned();
            assert!(
                header.contains("urn:x") && !header.contains("MessageID"),
                "{header}"
            );
        }
        assert_ne!(
            reply("", "<MessageID>1</MessageID>"),
            reply("", "<MessageID>2</MessageID>")
        );
    }

    /// A declaration that stands once in what came is needed at each of many elements.
    #[test]
    fn r13_a_reply_whose_normal_form_is_over_a_calls_bound_is_told_so_and_not_written() {
        let declared = format!("xmlns:a='{}'", "\"".repeat(2_000));
        let payload = format!("<r {declared}>{}</r>", "<a:x/>".repeat(12_000));
        let blocks = format!(
            "<b:h xmlns:b='urn:b' {declared}>{}</b:h>",
            "<a:x/>".repeat(300)
        );
        for told in [reply("", &payload), reply(&blocks.repeat(40), "<r/>")] {
            assert!(told.fault() && told.len() < 1_000);
        }
        assert!(!reply(&blocks, "<r/>").fault());
    }

    /// The largest call that is taken: its text is all escapes, which grow on the way.
    #[test]
    fn r21_the_envelope_for_the_service_is_never_over_a_calls_bound() {
        let (ns, mut taken) = (SOAP11.uri, 0);
        for letters in (limits::CALL_BYTES / 4 - 600)..(limits::CALL_BYTES / 4) {
            if letters % 25 != 0 {
                continue;
            }
            let text = ">".repeat(letters);
            let wsa = addressing::V200408.ns.uri;
            let user = format!(
                "<e:Envelope xmlns:e='{ns}'><e:Header><w:Action xmlns:w='{wsa}'>a</w:Action>\
                 </e:Header><e:Body><a>{text}</a></e:Body></e:Envelope>"
            );
            let Ok(content) = freeze(user.as_bytes(), Version::V11) else {
                continue;
            };
            let call = first_call(content);
            assert!(invocation(&call, ENV, 1, NAME).envelope.len() <= limits::CALL_BYTES);
            taken += 1;
        }
        assert!(taken > 0, "some of them must be taken");
    }

    const NAME: &str = "urn:uuid:00000000-0000-0000-0000-000000000001";

    const ENV: Env = Env {
        time: Time(0),
        seed: Digest([0; 32]),
    };

    /// The same of a package: what MIME needs around small parts is counted.
    #[test]
    fn r21_nor_is_a_package() {
        for (count, length, fields) in [(0, 0, 0), (256, 0, 0), (256, 1, 6), (3, 700, 3), (1, 9, 1)]
        {
            let part = |number: usize| {
                let mut part = Part::default();
                for (at, field) in part.fields.iter_mut().enumerate().take(fields) {
                    *field = format!("{at}.{number}");
                }
                part.octets = vec![7; length].into();
                part
            };
            let package = Package {
                root: "text/xml".to_owned(),
                parts: (0..count).map(part).collect(),
                ..Package::default()
            };
            let user = format!(
                "<e:Envelope xmlns:e='{}'><e:Body/></e:Envelope>",
                SOAP11.uri
            );
            let user = package.write(Version::V11, "", user.as_bytes());
            let content = freeze(&user, Version::V11).unwrap();
            let (bytes, nodes) = (content.bytes(), content.parts.nodes);
            let call = first_call(content);
            let message = invocation(&call, ENV, 1, NAME).envelope;
            let (_, body) = mime::apart(&message).unwrap();
            let counted = bytes + nodes * limits::MIME_AROUND + limits::ENVELOPE_AROUND;
            assert!(
                body.len() <= counted,
                "{count} parts: {} of {counted}",
                body.len()
            );
        }
    }
}
