//! What a CreateSequence of ours says beyond WS-RM's own words (R4): which group, who, in which
//! life, and for a client which GroupSequence and from which group number on.
//!
//! It is the one extension element of CreateSequence. A peer without it is a foreign WS-RM client,
//! and no business of a replica's.

use uuid::Uuid;

use crate::error::Refused;
use crate::limits;
use crate::soap::namespaces::BFT;
use crate::soap::writer::{Attribute, Writer};
use crate::soap::xml::Element;
use crate::types::{Digest, GroupNumber, Incarnation};

use super::{attribute, empty, expect, number, positive, schema, urn, uuid_of};

/// The extension element of CreateSequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The group's id.
    pub group: Digest,
    /// The sender's name in the group file.
    pub from: String,
    /// The sender's life.
    pub incarnation: Incarnation,
    /// What a client's leg carries; `None` between replicas.
    pub carries: Option<Carries>,
}

/// What a client's leg carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carries {
    /// The virtual sequence.
    pub group_sequence: Uuid,
    /// Leg number 1 is this group number, and so on without gaps.
    pub first: GroupNumber,
}

impl Leg {
    /// Writes the element into a CreateSequence; `identifier` is the one that the sequence shall
    /// have, for it is the source that supplies it (R4).
    pub fn write(&self, identifier: &str, out: &mut Writer<'_>) {
        let group = self.group.hex();
        let incarnation = self.incarnation.to_string();
        let carries = self
            .carries
            .map(|c| (c.first.to_string(), urn(c.group_sequence)));
        let mut attributes = Vec::with_capacity(6);
        if let Some((first, _)) = &carries {
            attributes.push(Attribute {
                ns: None,
                local: "first",
                value: first,
            });
        }
        attributes.push(Attribute {
            ns: None,
            local: "from",
            value: &self.from,
        });
        attributes.push(Attribute {
            ns: None,
            local: "group",
            value: &group,
        });
        if let Some((_, sequence)) = &carries {
            attributes.push(Attribute {
                ns: None,
                local: "groupSequence",
                value: sequence,
            });
        }
        attributes.push(Attribute {
            ns: None,
            local: "identifier",
            value: identifier,
        });
        attributes.push(Attribute {
            ns: None,
            local: "incarnation",
            value: &incarnation,
        });
        out.leaf(BFT, "Leg", &attributes, "");
    }

    /// Reads the element and the Identifier that it supplies.
    ///
    /// # Errors
    /// `Schema` for anything else, or a name over the bound.
    pub fn read(element: Element<'_, '_>) -> Result<(Self, String), Refused> {
        expect(element, "Leg")?;
        empty(
            element,
            &[
                "first",
                "from",
                "group",
                "groupSequence",
                "identifier",
                "incarnation",
            ],
        )?;
        let from = attribute(element, "from")?;
        let identifier = attribute(element, "identifier")?;
        let fits = |text: &str| (1..=limits::URI_BYTES).contains(&text.len());
        schema((fits(from) && fits(identifier)).then_some(()))?;
        let has = |name| element.attribute("", name).is_some();
        let carries = if has("groupSequence") || has("first") {
            Some(Carries {
                group_sequence: uuid_of(element, "groupSequence")?,
                first: GroupNumber(positive(element, "first")?),
            })
        } else {
            None
        };
        let leg = Self {
            group: schema(Digest::from_hex(attribute(element, "group")?))?,
            from: from.to_owned(),
            incarnation: Incarnation(number(element, "incarnation")?),
            carries,
        };
        Ok((leg, identifier.to_owned()))
    }
}
