//! The keys that one member shares with the others, made once at start from the group file and the
//! member's own secrets (R9).

use std::collections::BTreeMap;

use crate::crypto::{self, Identity, KeyError, PairKey, Principal, VerifyingKey};
use crate::soap::security::Keys;
use crate::types::{ClientId, ReplicaId};

use super::config::{GroupConfig, Member};

/// Every pair key of one member, and everybody's certificate.
#[derive(Debug)]
pub struct KeyTable {
    pairs: BTreeMap<String, (PairKey, Principal)>,
    urns: BTreeMap<Principal, String>,
    signers: BTreeMap<[u8; 20], (VerifyingKey, Principal)>,
}

impl KeyTable {
    /// The keys of a replica: it shares one with each other replica and each client.
    ///
    /// # Errors
    /// A name or key of the group file that cannot be used.
    pub fn of_replica(
        group: &GroupConfig,
        me: ReplicaId,
        identity: &Identity,
    ) -> Result<Self, KeyError> {
        let mut table = Self::signers(group);
        for (id, member) in replicas(group) {
            if id != me {
                table.share(group, identity, member, Principal::Replica(id))?;
            }
        }
        for member in &group.clients {
            let client = Principal::Client(member.certificate.client_id());
            table.share(group, identity, member, client)?;
        }
        Ok(table)
    }

    /// The keys of a client: it shares one with each replica.
    ///
    /// # Errors
    /// A name or key of the group file that cannot be used.
    pub fn of_client(group: &GroupConfig, identity: &Identity) -> Result<Self, KeyError> {
        let mut table = Self::signers(group);
        for (id, member) in replicas(group) {
            table.share(group, identity, member, Principal::Replica(id))?;
        }
        Ok(table)
    }

    fn signers(group: &GroupConfig) -> Self {
        let all = replicas(group)
            .map(|(id, member)| (member, Principal::Replica(id)))
            .chain(
                group
                    .clients
                    .iter()
                    .map(|member| (member, Principal::Client(member.certificate.client_id()))),
            );
        let signers = all
            .map(|(member, who)| {
                let key = member.certificate.key().clone();
                (*member.certificate.thumbprint(), (key, who))
            })
            .collect();
        Self {
            pairs: BTreeMap::new(),
            urns: BTreeMap::new(),
            signers,
        }
    }

    fn share(
        &mut self,
        group: &GroupConfig,
        identity: &Identity,
        member: &Member,
        who: Principal,
    ) -> Result<(), KeyError> {
        let pair = crypto::pair_key(
            identity.agreement(),
            &member.agreement_key,
            &group.id,
            group.key_epoch,
            (identity.name(), &member.name),
        )?;
        self.urns.insert(who, pair.urn().to_owned());
        self.pairs.insert(pair.urn().to_owned(), (pair, who));
        Ok(())
    }

    /// The key shared with a member; `None` if there is none.
    #[must_use]
    pub fn with(&self, who: Principal) -> Option<&PairKey> {
        self.pairs.get(self.urns.get(&who)?).map(|(pair, _)| pair)
    }

    /// The key shared with a replica.
    #[must_use]
    pub fn replica(&self, id: ReplicaId) -> Option<&PairKey> {
        self.with(Principal::Replica(id))
    }

    /// The key shared with a client.
    #[must_use]
    pub fn client(&self, id: ClientId) -> Option<&PairKey> {
        self.with(Principal::Client(id))
    }

    /// Every pair key, for `--record`.
    pub fn pairs(&self) -> impl Iterator<Item = &PairKey> {
        self.pairs.values().map(|(pair, _)| pair)
    }
}

fn replicas(group: &GroupConfig) -> impl Iterator<Item = (ReplicaId, &Member)> {
    group.quorums.replicas().zip(&group.replicas)
}

impl Keys for KeyTable {
    fn pair(&self, urn: &str) -> Option<(&PairKey, Principal)> {
        self.pairs.get(urn).map(|(pair, who)| (pair, *who))
    }

    fn signer(&self, thumbprint: &[u8; 20]) -> Option<(&VerifyingKey, Principal)> {
        self.signers.get(thumbprint).map(|(key, who)| (key, *who))
    }
}
