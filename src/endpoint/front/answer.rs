//! What users get back: envelopes in the versions of their requests.
//!
//! An answer knows whom it is for and in which versions; what it says, others decide.

use crate::rm::Acknowledgement;
use crate::rm::fault::{Code as RmCode, RmFault};
use crate::rm::header::{self, Block, Sequence};
use crate::rm::version::{self as rm, Operation};
use crate::soap::addressing::{self, Property, block_in};
use crate::soap::envelope::{self, Version};
use crate::soap::fault::Fault;
use crate::types::Network;
use crate::wire::parts::join;

use super::super::hop::passed_on;
use super::allowed::Allowed;
use super::message::{Message, is_back};
use super::reference::Reference;
use super::words::Post;

/// The way back to one request.
#[derive(Clone, Debug)]
pub struct Back {
    /// Where the request came from.
    pub network: Network,
    /// SOAP version.
    pub soap: Version,
    /// WS-Addressing.
    pub wsa: &'static addressing::Version,
    /// WS-RM.
    pub rm: &'static rm::Version,
    /// wsa:To of the answer, and where it goes.
    pub to: Reference,
    /// Where a fault goes.
    pub fault_to: Reference,
    /// Its wsa:RelatesTo.
    pub relates_to: Option<String>,
    /// Header blocks that ride on what goes back on the connection.
    pub riding: Vec<u8>,
}

/// What an answer says beside its Body.
#[derive(Debug, Default)]
pub struct Said<'a> {
    /// wsa:Action.
    pub action: &'a str,
    /// wsa:MessageID.
    pub message_id: String,
    /// It is on this sequence.
    pub sequence: Option<Sequence>,
    /// What is acknowledged.
    pub acknowledgement: Option<Acknowledgement>,
    /// More blocks of ours.
    pub blocks: Vec<Vec<u8>>,
    /// Canonical header blocks of the service, one after the other.
    pub header: &'a [u8],
    /// What the service's reply has beside its envelope.
    pub parts: &'a [u8],
    /// It answers no request.
    pub unasked: bool,
}

/// An answer and its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Back on the connection: status and envelope.
    Here(u16, Vec<u8>),
    /// To an address of its user's own; the connection gets [`nothing`].
    Elsewhere(Post),
}

/// Nothing to say.
#[must_use]
pub fn nothing() -> Answer {
    Answer::Here(202, Vec::new())
}

impl Back {
    /// The way back on the connection to a message of that name.
    #[must_use]
    pub fn here(soap: Version, wsa: &'static addressing::Version, id: Option<String>) -> Self {
        Self {
            network: Network::default(),
            soap,
            wsa,
            rm: &rm::V200702,
            to: Reference::bare(wsa.anonymous),
            fault_to: Reference::bare(wsa.anonymous),
            relates_to: id,
            riding: Vec::new(),
        }
    }

    /// The way back to a message. Where an address of its user's is not allowed, it is told on the
    /// connection.
    #[must_use]
    pub fn to(message: &Message<'_, '_>, allowed: &Allowed) -> Self {
        let reachable = |to: &Reference| match is_back(&to.address) || allowed.has(&to.address) {
            true => to.clone(),
            false => Reference::bare(message.wsa.anonymous),
        };
        Self {
            rm: message.rm,
            to: reachable(&message.reply_to),
            fault_to: reachable(&message.fault_to),
            ..Self::here(message.soap(), message.wsa, message.message_id())
        }
    }

    /// The same with nothing that rides on one answer.
    #[must_use]
    pub fn alone(&self) -> Self {
        Self {
            riding: Vec::new(),
            ..self.clone()
        }
    }

    /// Octets that it holds beyond a few addresses.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.to.blocks().0.len() + self.fault_to.blocks().0.len() + self.riding.len()
    }

    /// An envelope on its way.
    #[must_use]
    pub fn answer(&self, to: &Reference, status: u16, said: &Said<'_>, body: &[u8]) -> Answer {
        let octets = self.envelope(to, said, body);
        if is_back(&to.address) {
            return Answer::Here(status, octets);
        }
        Answer::Elsewhere(Post {
            network: self.network,
            address: to.address.clone(),
            action: said.action.to_owned(),
            version: self.soap,
            octets,
        })
    }

    /// The same to another address.
    #[must_use]
    pub fn leading_to(&self, to: &Reference) -> Self {
        Self {
            to: to.clone(),
            ..self.clone()
        }
    }

    /// How a block of WS-RM is written on it.
    #[must_use]
    pub fn block(&self) -> Block<'static> {
        Block {
            soap: self.soap.ns(),
            id: None,
        }
    }

    fn envelope(&self, to: &Reference, said: &Said<'_>, body: &[u8]) -> Vec<u8> {
        let mut blocks = vec![
            block_in(self.wsa, Property::To, &to.address),
            block_in(self.wsa, Property::Action, said.action),
        ];
        if !said.message_id.is_empty() {
            blocks.push(block_in(self.wsa, Property::MessageId, &said.message_id));
        }
        if let Some(id) = self.relates_to.as_ref().filter(|_| !said.unasked) {
            blocks.push(block_in(self.wsa, Property::RelatesTo, id));
        }
        if let Some(sequence) = &said.sequence {
            blocks.push(sequence.write(self.rm, self.block()));
        }
        if let Some(acknowledgement) = &said.acknowledgement {
            blocks.push(acknowledgement.write(self.rm, self.block()));
        }
        blocks.extend(said.blocks.iter().cloned());
        let passed = passed_on(said.header);
        let riding: &[u8] = match is_back(&to.address) {
            true => &self.riding,
            false => &[],
        };
        let all: Vec<&[u8]> = blocks
            .iter()
            .map(Vec::as_slice)
            .chain(
                [riding, to.blocks_in(self.wsa), &passed]
                    .into_iter()
                    .filter(|b| !b.is_empty()),
            )
            .collect();
        let envelope = envelope::write(self.soap, &all, body);
        join(self.soap, said.action, envelope, said.parts)
    }

    /// An operation of WS-RM.
    #[must_use]
    pub fn operation(
        &self,
        operation: Operation,
        message_id: String,
        acknowledgement: Option<Acknowledgement>,
        body: &[u8],
    ) -> Answer {
        let said = Said {
            action: self.rm.action(operation).unwrap_or_default(),
            message_id,
            acknowledgement,
            ..Said::default()
        };
        self.answer(&self.to, 200, &said, body)
    }

    /// A fault of WS-RM (§4). What a header block caused stands in a header block too in SOAP 1.1;
    /// what CreateSequence caused in the Body alone.
    #[must_use]
    pub fn rm_fault(&self, fault: &RmFault, acknowledgement: Option<Acknowledgement>) -> Answer {
        self.rm_soap(fault, fault.soap(self.rm), acknowledgement)
    }

    /// CreateSequenceRefused (§4.6), and why.
    #[must_use]
    pub fn not_created(&self, why: &str) -> Answer {
        let fault = RmFault::alone(RmCode::CreateSequenceRefused);
        let mut soap = fault.soap(self.rm);
        soap.reason = format!("{} {why}", soap.reason);
        self.rm_soap(&fault, soap, None)
    }

    fn rm_soap(
        &self,
        fault: &RmFault,
        mut soap: Fault,
        acknowledgement: Option<Acknowledgement>,
    ) -> Answer {
        let mut blocks = vec![soap.blocks(self.soap).to_vec()];
        if self.soap == Version::V11 && fault.code != RmCode::CreateSequenceRefused {
            soap.subcode = None;
            soap.detail = None;
            blocks.push(header::write_fault(fault, self.rm, self.block()));
        }
        let action = self.rm.action(Operation::Fault);
        let said = Said {
            action: action.unwrap_or(self.wsa.fault),
            acknowledgement,
            blocks,
            ..Said::default()
        };
        let status = soap.http_status(self.soap);
        self.answer(&self.fault_to, status, &said, &soap.write(self.soap))
    }

    /// Any other fault of ours.
    #[must_use]
    pub fn fault(&self, fault: &Fault, action: &str) -> Answer {
        let said = Said {
            action,
            blocks: vec![fault.blocks(self.soap).to_vec()],
            ..Said::default()
        };
        let status = fault.http_status(self.soap);
        self.answer(&self.fault_to, status, &said, &fault.write(self.soap))
    }
}
