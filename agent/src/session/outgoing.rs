//! The messages of a session as they go into HTTP/2. tonic's own encoder copies each message into a buffer of its own, which
//! then lies beside the block that has the same output until the node has read it. Here output goes on as it lies: its bytes
//! are the last of the messages around them, so what stands before them is made alone.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use helios_proto::v1::{Event, FromAgent, Output, event, from_agent};
use http_body::{Body, Frame};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use tonic::Status;

/// Less is copied behind what stands before it: a frame of its own costs more.
const COPIED: usize = 4 << 10;

/// The body of a session's request.
#[derive(Debug)]
pub(super) struct Outgoing<S> {
    messages: S,
    /// What is left of the message whose beginning has gone.
    rest: Bytes,
}

impl<S> Outgoing<S> {
    pub(super) fn new(messages: S) -> Self {
        Self {
            messages,
            rest: Bytes::new(),
        }
    }
}

impl<S: Stream<Item = FromAgent> + Unpin> Body for Outgoing<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))));
        }
        let Some(message) = ready!(this.messages.poll_next_unpin(cx)) else {
            return Poll::Ready(None);
        };
        let (begin, rest) = frame(&message);
        this.rest = rest;
        Poll::Ready(Some(Ok(Frame::data(begin))))
    }
}

/// A message as gRPC sends it: whether it is compressed, its length, itself. In two parts, of which the second may be empty.
fn frame(message: &FromAgent) -> (Bytes, Bytes) {
    let length = message.encoded_len();
    let output = output_of(message).filter(|output| output.data.len() >= COPIED);
    let alone = length - output.map_or(0, |output| output.data.len());
    let mut begin = BytesMut::with_capacity(5 + alone);
    begin.put_u8(0);
    // The most that is ever sent is far below it.
    begin.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    match (&message.message, output) {
        (Some(from_agent::Message::Event(event)), Some(output)) => {
            encode_key(2, WireType::LengthDelimited, &mut begin);
            encode_varint(event.encoded_len() as u64, &mut begin);
            // All fields but the last, as they are encoded when it is empty.
            let fields = Event { event: None, ..*event };
            fields.encode_raw(&mut begin);
            encode_key(5, WireType::LengthDelimited, &mut begin);
            encode_varint(output.encoded_len() as u64, &mut begin);
            let stream = Output {
                data: Bytes::new(),
                ..*output
            };
            stream.encode_raw(&mut begin);
            encode_key(2, WireType::LengthDelimited, &mut begin);
            encode_varint(output.data.len() as u64, &mut begin);
            (begin.freeze(), output.data.clone())
        }
        _ => {
            message.encode_raw(&mut begin);
            (begin.freeze(), Bytes::new())
        }
    }
}

fn output_of(message: &FromAgent) -> Option<&Output> {
    match &message.message {
        Some(from_agent::Message::Event(event)) => match &event.event {
            Some(event::Event::Output(output)) => Some(output),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, stream};
    use helios_proto::v1::{Hello, Started};
    use proptest::prelude::*;

    use super::*;

    fn event(numbers: (u64, u64, i64), event: event::Event) -> FromAgent {
        FromAgent {
            message: Some(from_agent::Message::Event(Event {
                sequence: numbers.0,
                exec_id: numbers.1,
                time_ms: numbers.2,
                event: Some(event),
            })),
        }
    }

    /// What goes over the wire for these messages, and in which pieces.
    fn sent(messages: Vec<FromAgent>) -> Vec<Bytes> {
        let mut body = Outgoing::new(stream::iter(messages));
        let frame = |body: &mut Outgoing<_>| block_on(std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)));
        std::iter::from_fn(|| frame(&mut body))
            .map(|frame| frame.unwrap().into_data().unwrap())
            .collect()
    }

    proptest! {
        /// Byte for byte what prost makes of it.
        #[test]
        fn output_is_encoded_like_any_message(
            numbers in any::<(u64, u64, i64)>(),
            stream in 0..3_i32,
            len in prop_oneof![0..10_usize, COPIED - 1..COPIED + 2, Just(helios_proto::MAX_OUTPUT)],
        ) {
            let data = Bytes::from(vec![7; len]);
            let message = event(numbers, event::Event::Output(Output { stream, data }));
            let wire = sent(vec![message.clone()]).concat();
            prop_assert_eq!(wire[0], 0);
            prop_assert_eq!(&wire[1..5], u32::try_from(wire.len() - 5).unwrap().to_be_bytes());
            prop_assert_eq!(&wire[5..], message.encode_to_vec());
        }
    }

    #[test]
    fn output_is_not_copied_and_what_is_small_is_one_piece() {
        let data = Bytes::from(vec![1; 100_000]);
        let output = |data: &Bytes| {
            event::Event::Output(Output {
                stream: 1,
                data: data.clone(),
            })
        };
        let started = event::Event::Started(Started { pid: 7 });
        let hello = FromAgent {
            message: Some(from_agent::Message::Hello(Hello::default())),
        };
        let pieces = sent(vec![
            hello,
            event((1, 1, 1), started),
            event((2, 1, 1), output(&data)),
            event((3, 1, 1), output(&data.slice(..100))),
        ]);
        assert_eq!(pieces.len(), 5);
        assert_eq!(pieces[3].as_ptr(), data.as_ptr());
        assert!(pieces[2].len() < 50 && pieces[4].len() > 100);
    }
}
