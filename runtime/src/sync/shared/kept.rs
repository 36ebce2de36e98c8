//! How items lie in a channel: as they are, or, being large, each in a box of its own.
//!
//! A channel has room for an item in place, and what is made is moved: an item that is large would fill the stack of a
//! thread several times over before anybody has sent one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::channel_state::Channel;

/// Items of more bytes than this are boxed.
const LARGE: usize = 4096;

/// An item as it lies in a channel.
pub(super) trait Kept<T> {
    fn keep(item: T) -> Self;
    fn given(self) -> T;
}

impl<T> Kept<T> for T {
    #[inline]
    fn keep(item: T) -> Self {
        item
    }

    #[inline]
    fn given(self) -> T {
        self
    }
}

impl<T> Kept<T> for Box<T> {
    fn keep(item: T) -> Self {
        Self::new(item)
    }

    fn given(self) -> T {
        *self
    }
}

/// A channel of items that are not large, or of boxes.
pub(super) enum Way<T> {
    Plain(Arc<Channel<T>>),
    Boxed(Arc<Channel<Box<T>>>),
}

impl<T> Way<T> {
    pub(super) fn new(capacity: usize) -> Self {
        match Self::is_boxed() {
            true => Self::Boxed(Arc::new(Channel::new(capacity))),
            false => Self::plain(capacity),
        }
    }

    /// Apart, so that its stack is needed for small items alone.
    #[inline(never)]
    fn plain(capacity: usize) -> Self {
        Self::Plain(Arc::new(Channel::new(capacity)))
    }

    #[inline(always)]
    const fn is_boxed() -> bool {
        const { size_of::<T>() > LARGE }
    }

    /// The same of a channel at hand. It is known to the compiler, which leaves out what is done for the other kind of
    /// items, and its stack.
    #[inline(always)]
    pub(super) fn has_boxes(&self) -> bool {
        Self::is_boxed()
    }
}

impl<T> Clone for Way<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Plain(channel) => Self::Plain(Arc::clone(channel)),
            Self::Boxed(channel) => Self::Boxed(Arc::clone(channel)),
        }
    }
}

/// Does the same on either channel.
macro_rules! either {
    ($way:expr, $channel:ident => $body:expr) => {
        match $way {
            Way::Plain($channel) if !$way.has_boxes() => $body,
            Way::Boxed($channel) if $way.has_boxes() => $body,
            _ => unreachable!("its items have one size"),
        }
    };
}

pub(super) use either;

/// A future that concerns either channel.
pub(super) enum Either<A, B> {
    Plain(A),
    Boxed(B),
}

impl<A, B> Future for Either<A, B>
where
    A: Future + Unpin,
    B: Future<Output = A::Output> + Unpin,
{
    type Output = A::Output;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Plain(future) => Pin::new(future).poll(cx),
            Self::Boxed(future) => Pin::new(future).poll(cx),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use super::super::channel;
    use super::LARGE;
    use crate::block_on;

    const HUGE: usize = 1 << 20;

    #[test]
    fn a_channel_is_made_where_the_stack_has_no_room_for_an_item() {
        let uses = || {
            for capacity in [0, 1, 100] {
                let (sender, receiver) = channel::bounded::<[u8; HUGE]>(capacity);
                let moved = (sender.clone(), receiver);
                assert!(moved.0.is_empty());
                drop(moved);
                assert!(sender.is_closed());
            }
        };
        let thread = std::thread::Builder::new().stack_size(HUGE / 2);
        let thread = thread.spawn(uses).expect("a thread");
        thread.join().expect("it ends well");
    }

    /// An item that is told from others, and counted.
    struct Large {
        number: u32,
        _bytes: [u8; LARGE],
        _counted: Arc<()>,
    }

    #[test]
    fn large_items_come_in_order_and_are_dropped_once() {
        let counted = Arc::new(());
        let large = |number| Large {
            number,
            _bytes: [0; LARGE],
            _counted: Arc::clone(&counted),
        };
        let (sender, receiver) = channel::bounded(3);
        block_on(async {
            assert!(sender.send(large(0)).await.is_ok());
            assert!(sender.try_send(large(1)).is_ok());
            let mut many: VecDeque<_> = (2..9).map(large).collect();
            let mut came = Vec::new();
            let sends = sender.clone();
            let task = crate::spawn(async move { sends.send_many(&mut many).await.is_ok() });
            while came.len() < 9 {
                match came.len() % 2 {
                    0 => came.extend(receiver.recv().await.expect("nobody cancels")),
                    _ => drop(receiver.recv_many(&mut came, 2).await),
                }
            }
            assert!(task.await.expect("it does not panic"));
            let numbers: Vec<_> = came.iter().map(|item| item.number).collect();
            assert_eq!(numbers, (0..9).collect::<Vec<_>>());
        })
        .expect("a core");
        assert_eq!(Arc::strong_count(&counted), 1);
        for number in 0..3 {
            assert!(sender.try_send(large(number)).is_ok());
        }
        let unsent = sender.try_send(large(3)).expect_err("it is full");
        assert_eq!(unsent.into_inner().number, 3);
        assert_eq!(receiver.recv_blocking().map(|item| item.number), Some(0));
        assert!(sender.send_blocking(large(4)).is_ok());
        assert_eq!(Arc::strong_count(&counted), 4);
        drop(receiver);
        assert_eq!(Arc::strong_count(&counted), 1);
        let unsent = sender.send_blocking(large(5)).expect_err("it is closed");
        assert_eq!(unsent.into_inner().number, 5);
    }
}
