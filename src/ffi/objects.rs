//! The table of all objects that C callers hold.
//!
//! C sees a pointer, but it is a number that looks like no address: it is looked up here and never followed. Numbers
//! are never reused, so the table notices an object that was freed, one of another type, and an address from elsewhere.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_HANDLE, VMCELL_ERROR_HOST, VMCELL_ERROR_NULL_ARGUMENT};

/// Something that C callers hold by an opaque pointer.
pub(super) trait Object: Any + Send + Sync {
    /// Its name in C.
    const NAME: &'static str;
}

#[derive(Clone)]
struct Entry {
    name: &'static str,
    object: Arc<dyn Any + Send + Sync>,
}

type Shard = BTreeMap<usize, Entry>;

/// Handles are odd, as no object's address is, and lie where no processor has addresses.
const MARK: usize = 0x5643 << 48;
const SERIAL_BITS: u32 = 47;
const SERIAL_END: usize = 1 << SERIAL_BITS;
const SHARDS: usize = 16;

static NEXT: AtomicUsize = AtomicUsize::new(1);
static TABLE: [RwLock<Shard>; SHARDS] = [const { RwLock::new(BTreeMap::new()) }; SHARDS];

const _: () = assert!(usize::BITS == 64, "a handle has 64 bits");

fn handle_of(serial: usize) -> usize {
    MARK | serial << 1 | 1
}

/// The serial number, if it was ever given out.
fn serial_of(handle: usize) -> Option<usize> {
    let serial = (handle ^ MARK) >> 1;
    let given_out = 1..NEXT.load(Ordering::Relaxed).min(SERIAL_END);
    (handle & 1 == 1 && handle & !(usize::MAX >> 16) == MARK && given_out.contains(&serial)).then_some(serial)
}

#[expect(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
fn shard(serial: usize) -> &'static RwLock<Shard> {
    &TABLE[serial % SHARDS]
}

// A shard is whole after each change, so a panic elsewhere does not matter.
fn read(serial: usize) -> RwLockReadGuard<'static, Shard> {
    shard(serial).read().unwrap_or_else(PoisonError::into_inner)
}

fn write(serial: usize) -> RwLockWriteGuard<'static, Shard> {
    shard(serial).write().unwrap_or_else(PoisonError::into_inner)
}

/// Puts an object into the table.
pub(super) fn insert<T: Object>(object: T) -> FfiResult<*mut T> {
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    if serial >= SERIAL_END {
        NEXT.store(SERIAL_END, Ordering::Relaxed);
        return Err(Failure::new(VMCELL_ERROR_HOST, format!("all {SERIAL_END} handles of this process are used up")));
    }
    let entry = Entry { name: T::NAME, object: Arc::new(object) };
    write(serial).insert(serial, entry);
    Ok(ptr::without_provenance_mut(handle_of(serial)))
}

/// The object behind a handle. It lives at least as long as the returned value, even if it is freed meanwhile.
pub(super) fn get<T: Object>(handle: *const T) -> FfiResult<Arc<T>> {
    let serial = serial(handle)?;
    let entry = read(serial).get(&serial).cloned();
    downcast(entry.ok_or_else(gone::<T>)?)
}

/// Takes an object out of the table: from now on its handle is known to be gone.
pub(super) fn take<T: Object>(handle: *const T) -> FfiResult<Arc<T>> {
    let serial = serial(handle)?;
    let mut shard = write(serial);
    let object = downcast(shard.get(&serial).cloned().ok_or_else(gone::<T>)?)?;
    let entry = shard.remove(&serial);
    // An object may do anything at its end, so it must not end under the lock.
    drop(shard);
    drop(entry);
    Ok(object)
}

/// An object that belongs to the library: it is in the table for as long as this lives.
pub(super) struct Registered<T: Object> {
    /// The handle; as a number it may move to any thread.
    number: usize,
    object: PhantomData<fn() -> T>,
}

impl<T: Object> Registered<T> {
    pub(super) fn new(object: T) -> FfiResult<Self> {
        Ok(Self { number: insert(object)?.addr(), object: PhantomData })
    }

    pub(super) fn handle(&self) -> *mut T {
        ptr::without_provenance_mut(self.number)
    }
}

impl<T: Object> Drop for Registered<T> {
    fn drop(&mut self) {
        // It fails for an object that its borrower freed, which no function of the interface does.
        let _ = take(self.handle());
    }
}

fn serial<T: Object>(handle: *const T) -> FfiResult<usize> {
    if handle.is_null() {
        return Err(Failure::new(VMCELL_ERROR_NULL_ARGUMENT, format!("a {} was expected, this is NULL", T::NAME)));
    }
    let message = || format!("a {} was expected, {handle:p} is no object of this library", T::NAME);
    serial_of(handle.addr()).ok_or_else(|| Failure::new(VMCELL_ERROR_BAD_HANDLE, message()))
}

/// The object was freed, or handed over to a call that takes it.
pub(super) fn gone<T: Object>() -> Failure {
    let message = format!("a {} was expected, this object was freed or handed over before", T::NAME);
    Failure::new(VMCELL_ERROR_BAD_HANDLE, message)
}

fn downcast<T: Object>(entry: Entry) -> FfiResult<Arc<T>> {
    entry.object.downcast().map_err(|_| {
        Failure::new(VMCELL_ERROR_BAD_HANDLE, format!("a {} was expected, this is a {}", T::NAME, entry.name))
    })
}

/// How many objects the table holds.
pub(super) fn count() -> u64 {
    (0..SHARDS).map(|serial| read(serial).len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::super::guard::free;
    use super::*;

    struct Plum(u32);
    struct Pear;

    impl Object for Plum {
        const NAME: &'static str = "plum";
    }

    impl Object for Pear {
        const NAME: &'static str = "pear";
    }

    fn refusal(handle: *const Plum) -> (i32, String) {
        let failure = get(handle).err().expect("it is refused");
        (failure.number(), failure.to_string())
    }

    #[test]
    fn an_object_is_found_until_it_is_taken() {
        let handle = insert(Plum(7)).unwrap();
        assert_eq!(get(handle).unwrap().0, 7);
        assert_eq!(take(handle).unwrap().0, 7);
        let gone = "a plum was expected, this object was freed or handed over before";
        assert_eq!(refusal(handle), (VMCELL_ERROR_BAD_HANDLE, gone.to_owned()));
        assert!(take(handle).is_err());
    }

    #[test]
    fn null_other_types_and_foreign_addresses_are_told_apart() {
        assert_eq!(refusal(ptr::null()).0, VMCELL_ERROR_NULL_ARGUMENT);
        let pear = insert(Pear).unwrap();
        assert_eq!(refusal(pear.cast()), (VMCELL_ERROR_BAD_HANDLE, "a plum was expected, this is a pear".to_owned()));
        assert!(get(pear).is_ok(), "a wrong guess takes nothing");
        take(pear).unwrap();
        let elsewhere = Plum(1);
        for foreign in [&raw const elsewhere, ptr::without_provenance(1), ptr::without_provenance(usize::MAX)] {
            assert!(refusal(foreign).1.ends_with("is no object of this library"));
        }
    }

    #[test]
    fn an_object_in_use_outlives_its_handle() {
        let handle = insert(Plum(3)).unwrap();
        let used = get(handle).unwrap();
        assert_eq!(free(handle, drop), 0);
        assert_eq!(free(handle, drop), VMCELL_ERROR_BAD_HANDLE);
        assert_eq!(used.0, 3);
    }
}
