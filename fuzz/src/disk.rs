//! What a restart reads: segments, records, the snapshot of the table of calls.

use bft_ws::log::codec::{decode, encode};
use bft_ws::log::recover::Recovered;
use bft_ws::log::segments::scan;
use bft_ws::state::calls::Calls;
use bft_ws::state::token::Token;

/// The octets as one segment, and as the contents of frames whose checksums are right: a checksum
/// keeps a fuzzer out, and a liar who writes to our disk not.
pub fn log(octets: &[u8]) {
    for last in [true, false] {
        if let Ok(scan) = scan(octets, last) {
            assert!(scan.good <= octets.len());
            let mut recovered = Recovered::default();
            scan.records.into_iter().for_each(|r| recovered.take(r));
            look(&recovered);
        }
    }
    let mut recovered = Recovered::default();
    for content in octets.split(|b| *b == 0xfe) {
        let framed = framed(content);
        let Ok((frame, length)) = decode(&framed) else {
            continue;
        };
        assert_eq!(length, framed.len());
        let mut again = Vec::new();
        encode(&frame, &mut again);
        let (same, _) = decode(&again).expect("what we write is read");
        assert_eq!(same, frame);
        if let bft_ws::log::codec::Frame::Record(record) = frame {
            recovered.take(record);
        }
    }
    look(&recovered);
}

fn look(recovered: &Recovered) {
    let deliveries = recovered.deliveries().count() as u64;
    assert!(deliveries <= recovered.delivered().0);
    let mut restored = recovered.clone();
    let seqno = recovered.delivered();
    restored.restored(seqno, recovered.time);
    assert_eq!(restored.executed, seqno);
    assert!(restored.slots.keys().all(|at| *at > seqno));
}

fn framed(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len())
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length);
    sum.update(content);
    [&length, &sum.finalize().to_le_bytes()[..], content].concat()
}

/// A snapshot that is taken is written again octet by octet; a token likewise.
pub fn snapshot(octets: &[u8]) {
    if let Ok(calls) = Calls::restore(octets) {
        assert_eq!(calls.snapshot(), octets);
        let _ = calls.digest();
    }
    if let Some(token) = Token::decode(octets) {
        assert_eq!(token.encode(), octets);
    }
}
