//! The kinds of kernel ops, as they are told to people and counted.

macro_rules! kinds {
    ($($kind:ident $name:literal,)+) => {
        /// What a kernel op does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum OpKind {
            $($kind,)+
        }

        impl OpKind {
            /// All of them, in order.
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)+];

            /// Returns what people call it.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }
    };
}

impl OpKind {
    /// Returns whether it is measured how long it takes: of an op that completes many times it would
    /// say nothing.
    pub(crate) fn is_measured(self) -> bool {
        !matches!(self, Self::Accept | Self::ReceiveMulti | Self::Cancel)
    }
}

kinds! {
    Nop "nop",
    Accept "accept",
    Connect "connect",
    Receive "receive",
    ReceiveMulti "multishot receive",
    Send "send",
    SendZeroCopy "zero-copy send",
    SendVectored "send of several buffers",
    Read "read",
    Write "write",
    Sync "sync",
    Open "open",
    Status "status",
    Close "close",
    Poll "poll",
    Cancel "cancel",
}
