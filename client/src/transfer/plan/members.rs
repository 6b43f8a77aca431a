//! Who works on a plan, in the order in which they came, and what each is told.
//!
//! The first works, whatever the others are told: so as long as anybody is there, somebody asks for
//! more. What a member is told follows from its place alone, and is set anew whenever somebody comes
//! or goes. Only this file writes it.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use crate::{
    requests::calls::{Shared, Submission},
    transfer::trial::Order,
};

/// What one worker is told: it looks in every turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders(Arc<AtomicU8>);

const WORK: u8 = 0;
const HOLD: u8 = 1;
const LEAVE: u8 = 2;

impl Orders {
    /// Whether to send nothing for now.
    pub(crate) fn are_to_hold(&self) -> bool {
        self.0.load(Ordering::Acquire) == HOLD
    }

    /// Whether to give back everything, and to go.
    pub(crate) fn are_to_leave(&self) -> bool {
        self.0.load(Ordering::Acquire) == LEAVE
    }

    /// Says whether it was news.
    fn set(&self, order: Order) -> bool {
        let number = match order {
            Order::Work => WORK,
            Order::Hold => HOLD,
            Order::Leave => LEAVE,
        };
        self.0.swap(number, Ordering::AcqRel) != number
    }
}

/// A channel that works on the plan.
pub(super) struct Member {
    pub(super) id: u32,
    pub(super) shared: Arc<Shared>,
    pub(super) resting: bool,
    orders: Orders,
}

impl Member {
    /// It has to look what there is to do.
    pub(super) fn wake(&mut self) {
        self.resting = false;
        self.shared.submit(Submission::Look);
    }
}

/// All who work on a plan.
pub(super) struct Members {
    list: Vec<Member>,
    next_id: u32,
    /// What all but the first are told.
    further: Order,
}

impl Members {
    /// Nobody yet.
    pub(super) const fn new() -> Self {
        Self {
            list: Vec::new(),
            next_id: 0,
            further: Order::Work,
        }
    }

    /// Another one comes, behind those who are there.
    pub(super) fn add(&mut self, shared: &Arc<Shared>) -> (u32, Orders) {
        let (id, orders) = (self.next_id, Orders::default());
        self.next_id = id.wrapping_add(1);
        self.list.push(Member {
            id,
            shared: Arc::clone(shared),
            resting: false,
            orders: orders.clone(),
        });
        self.tell();
        (id, orders)
    }

    /// One goes. Who is the first then works.
    pub(super) fn remove(&mut self, id: u32) {
        self.list.retain(|member| member.id != id);
        self.tell();
    }

    /// What all but the first are told from now on, and those who come later.
    pub(super) fn order_further(&mut self, order: Order) {
        self.further = order;
        self.tell();
    }

    /// Tells each what follows from its place, and wakes those to whom it is news.
    fn tell(&mut self) {
        let orders = std::iter::once(Order::Work).chain(std::iter::repeat(self.further));
        for (member, order) in self.list.iter_mut().zip(orders) {
            if member.orders.set(order) {
                member.wake();
            }
        }
    }

    /// Whether it is the first: the one that works whatever happens.
    pub(super) fn is_first(&self, id: u32) -> bool {
        self.list.first().is_some_and(|member| member.id == id)
    }

    /// Whether anybody ever came.
    pub(super) const fn had_any(&self) -> bool {
        self.next_id > 0
    }

    pub(super) const fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.list.iter_mut()
    }

    /// One of them.
    pub(super) fn find(&self, id: u32) -> Option<&Member> {
        self.iter().find(|member| member.id == id)
    }

    /// Whether others are there than this one.
    pub(super) fn are_others(&self, id: u32) -> bool {
        self.iter().any(|member| member.id != id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_comes_first_after_a_loss_is_no_longer_held() {
        for order in [Order::Hold, Order::Leave] {
            let (mut members, shared) = (Members::new(), Shared::new());
            let ((first, orders), (_, further)) = (members.add(&shared), members.add(&shared));
            members.order_further(order);
            assert!(!orders.are_to_hold() && !orders.are_to_leave());
            assert!(further.are_to_hold() || further.are_to_leave());
            members.remove(first);
            assert!(!further.are_to_hold() && !further.are_to_leave());
            // Who comes later is told what the others are.
            let (_, late) = members.add(&shared);
            assert_eq!(late.are_to_hold(), order == Order::Hold);
            assert_eq!(late.are_to_leave(), order == Order::Leave);
        }
    }

    proptest! {
        #[test]
        fn the_first_works_and_the_others_do_as_they_are_told(
            steps in proptest::collection::vec((0..5_u8, any::<prop::sample::Index>()), 0..100),
        ) {
            let (mut members, shared) = (Members::new(), Shared::new());
            let (mut there, mut told) = (Vec::<(u32, Orders)>::new(), Order::Work);
            for (step, which) in steps {
                match step {
                    0 => there.push(members.add(&shared)),
                    1 if !there.is_empty() => members.remove(there.remove(which.index(there.len())).0),
                    1 => {}
                    _ => {
                        told = [Order::Work, Order::Hold, Order::Leave][usize::from(step) - 2];
                        members.order_further(told);
                    }
                }
                prop_assert_eq!((members.len(), members.is_empty()), (there.len(), there.is_empty()));
                for (place, (id, orders)) in there.iter().enumerate() {
                    let holds = place > 0 && told == Order::Hold;
                    let leaves = place > 0 && told == Order::Leave;
                    prop_assert_eq!((orders.are_to_hold(), orders.are_to_leave()), (holds, leaves));
                    prop_assert_eq!(members.is_first(*id), place == 0);
                }
            }
        }
    }
}
