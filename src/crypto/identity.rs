//! A member's own keys ([`Identity`]) and what others know of it ([`Certificate`]).
//!
//! A certificate here is a container for one Ed25519 key in the form that WS-Security stacks take:
//! self-signed X.509. Trust comes from standing in the group file; validity dates, extensions and
//! the subject's name decide nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{AgreementKey, KeyError, PairKey, SigningKey, VerifyingKey, is_name, sha1, sha256};
use crate::types::{ClientId, Digest};

/// Octets of a certificate that is read.
const CERTIFICATE_BYTES: usize = 4 << 10;
/// First word of a serialized secret; a later form gets another.
const SECRET_FORM: &str = "bft-ws-secret-1";
/// 1.3.101.112, id-Ed25519 (RFC 8410 §3).
const ED25519_OID: &str = "1.3.101.112";
/// What stands before the 64 octets of the signature: its algorithm, and the BIT STRING's head.
const SIGNATURE_HEAD: [u8; 10] = [0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 65, 0];

/// A self-signed X.509 certificate of an Ed25519 key.
#[derive(Clone, Debug)]
pub struct Certificate {
    der: Vec<u8>,
    client_id: ClientId,
    thumbprint: [u8; 20],
    key: VerifyingKey,
    public: [u8; 32],
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// When the octets are not exactly one DER certificate, its key is not Ed25519, or its own key
    /// did not sign it (a damaged file).
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        use x509_parser::prelude::{FromDer, X509Certificate};
        if der.len() > CERTIFICATE_BYTES {
            return Err(KeyError::Certificate);
        }
        let (rest, read) = X509Certificate::from_der(der).map_err(|_| KeyError::Certificate)?;
        if !rest.is_empty() {
            return Err(KeyError::Certificate);
        }
        let spki = read.public_key();
        if spki.algorithm.algorithm.to_id_string() != ED25519_OID
            || read.signature_algorithm.algorithm.to_id_string() != ED25519_OID
        {
            return Err(KeyError::Algorithm);
        }
        // The signature covers what stands before this; the reader is lenient about tags in it.
        let (_, end) = der.split_at(der.len().saturating_sub(SIGNATURE_HEAD.len() + 64));
        if !end.starts_with(&SIGNATURE_HEAD) {
            return Err(KeyError::Certificate);
        }
        let public = <[u8; 32]>::try_from(spki.subject_public_key.data.as_ref())
            .map_err(|_| KeyError::Algorithm)?;
        let key = VerifyingKey::from_octets(&public)?;
        key.verify(read.tbs_certificate.as_ref(), &read.signature_value.data)
            .ok_or(KeyError::SelfSignature)?;
        Ok(Self {
            client_id: ClientId(sha256(spki.raw)),
            thumbprint: sha1(der),
            key,
            public,
            der: der.to_vec(),
        })
    }

    /// The certificate's octets.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the SubjectPublicKeyInfo: the ClientId of a client with this key.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        self.client_id
    }

    /// SHA-1 of the DER: how a KeyInfo names the certificate (WSS X.509 token profile 1.1 §3.2.1).
    #[must_use]
    pub fn thumbprint(&self) -> &[u8; 20] {
        &self.thumbprint
    }

    /// The key that it holds.
    #[must_use]
    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }
}

/// A member's name, secret keys and certificate.
#[derive(Debug)]
pub struct Identity {
    name: String,
    seed: Seed,
    signing: SigningKey,
    agreement: AgreementKey,
    certificate: Certificate,
}

/// Kept to write the secret back; printed by nothing.
struct Seed([u8; 32]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed")
    }
}

impl Identity {
    /// Makes the keys and the certificate of `name` from 32 octets of entropy. The same seed makes
    /// the same identity, which is what a simulator wants.
    ///
    /// # Errors
    /// When the name cannot stand in a key's URN.
    pub fn generate(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        let (signing, agreement) = keys(name, seed)?;
        let certificate = self_signed(name, &signing)?;
        Ok(Self {
            name: name.to_owned(),
            seed: Seed(*seed),
            signing,
            agreement,
            certificate,
        })
    }

    /// A secret of this member for one use, the same in each of its lives and at its twins.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> PairKey {
        let root = PairKey::new(String::new(), self.seed.0);
        PairKey::new(purpose.to_owned(), root.mac(purpose.as_bytes()))
    }

    /// The secret in one line of text, for a file that only its owner reads.
    #[must_use]
    pub fn to_secret(&self) -> String {
        let seed = BASE64.encode(self.seed.0);
        let certificate = BASE64.encode(self.certificate.der());
        format!("{SECRET_FORM} {} {seed} {certificate}\n", self.name)
    }

    /// Reads what [`Identity::to_secret`] wrote.
    ///
    /// # Errors
    /// When the text is something else, or certificate and key do not belong together.
    pub fn from_secret(text: &str) -> Result<Self, KeyError> {
        let words: Vec<&str> = text.split_ascii_whitespace().take(5).collect();
        let [SECRET_FORM, name, seed, certificate] = words[..] else {
            return Err(KeyError::Secret);
        };
        let octets = |word: &str| BASE64.decode(word).map_err(|_| KeyError::Secret);
        let seed = <[u8; 32]>::try_from(octets(seed)?).map_err(|_| KeyError::Secret)?;
        let certificate = Certificate::from_der(&octets(certificate)?)?;
        let (signing, agreement) = keys(name, &seed)?;
        if signing.public() != certificate.public {
            return Err(KeyError::Mismatch);
        }
        Ok(Self {
            name: name.to_owned(),
            seed: Seed(seed),
            signing,
            agreement,
            certificate,
        })
    }

    /// The member's name in the group file and in its keys' URNs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key that signs.
    #[must_use]
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// The key from which pair keys are made.
    #[must_use]
    pub fn agreement(&self) -> &AgreementKey {
        &self.agreement
    }

    /// What the group file holds of this member.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

/// Two independent keys from one seed: each half of the program sees only its own.
fn keys(name: &str, seed: &[u8; 32]) -> Result<(SigningKey, AgreementKey), KeyError> {
    if !is_name(name) {
        return Err(KeyError::Name);
    }
    let derive = |label: &[u8]| {
        let Digest(octets) = sha256(&[label, seed].concat());
        octets
    };
    Ok((
        SigningKey::from_seed(&derive(b"urn:bft-ws:1:ed25519"))?,
        AgreementKey::from_seed(&derive(b"urn:bft-ws:1:x25519"))?,
    ))
}

fn self_signed(name: &str, key: &SigningKey) -> Result<Certificate, KeyError> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    // RFC 5280 §4.1.2.5: no well-defined end. The group file decides who is a member.
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let signer = CertificateKey {
        public: key.public(),
        key,
    };
    let made = params.self_signed(&signer).map_err(|_| KeyError::Library)?;
    Certificate::from_der(made.der())
}

/// Lends our key to the certificate writer.
struct CertificateKey<'a> {
    public: [u8; 32],
    key: &'a SigningKey,
}

impl rcgen::PublicKeyData for CertificateKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for CertificateKey<'_> {
    fn sign(&self, octets: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let made = self
            .key
            .sign(octets)
            .map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(made.to_vec())
    }
}
