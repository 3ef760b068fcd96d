//! Client frames and a client's compression, for tests.

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

/// The mask of every test frame.
pub(crate) const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A masked client frame; `head` is the whole first byte.
pub(crate) fn client(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![head];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The payload of a compressed message as a client with this window makes it.
pub(crate) fn deflated(message: &[u8], window_bits: u8) -> Vec<u8> {
    let mut deflate = Deflate::new(6, false, window_bits);
    let mut payload = vec![0; message.len() + message.len() / 8 + 64];
    deflate.compress(message, &mut payload, DeflateFlush::SyncFlush).expect("a level and a window that there are");
    payload.truncate(usize::try_from(deflate.total_out()).expect("it is in memory"));
    assert!(payload.ends_with(&[0, 0, 0xFF, 0xFF]), "there was room for all of it");
    payload.truncate(payload.len() - 4);
    payload
}

/// The message of a compressed payload, made piece by piece: each distance has to be within the window.
pub(crate) fn inflated_in_pieces(payload: &[u8]) -> Option<Vec<u8>> {
    let mut inflate = Inflate::new(false, 15);
    let (mut message, mut room) = (Vec::new(), [0; 512]);
    let payload = [payload, &[0, 0, 0xFF, 0xFF]].concat();
    for mut piece in payload.chunks(100) {
        loop {
            let (taken, made) = (inflate.total_in(), inflate.total_out());
            inflate.decompress(piece, &mut room, InflateFlush::SyncFlush).ok()?;
            piece = &piece[usize::try_from(inflate.total_in() - taken).ok()?..];
            let made = usize::try_from(inflate.total_out() - made).ok()?;
            message.extend_from_slice(&room[..made]);
            if piece.is_empty() && made < room.len() {
                break;
            }
        }
    }
    Some(message)
}
