//! What is known of a thing that may have come to pass, or not yet.

/// Three answers. A deadline that is reached, or a cancel that was sent, is seen within bounds: until
/// then it may have been, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    No,
    Perhaps,
    Yes,
}

impl Truth {
    pub(super) fn of(certain: bool) -> Self {
        if certain { Self::Yes } else { Self::No }
    }

    pub(super) fn or(self, other: Self) -> Self {
        self.max(other)
    }

    pub(super) fn and(self, other: Self) -> Self {
        self.min(other)
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Perhaps => Self::Perhaps,
            Self::Yes => Self::No,
        }
    }

    /// Whether what was seen may be.
    pub(super) fn allows(self, seen: bool) -> bool {
        self == Self::Perhaps || (self == Self::Yes) == seen
    }
}
