//! Array maps as memory.

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Map, MapData};

/// An array map in our address space: whole tables are written by plain stores, without a system call for each
/// element. All of a mapping counts as the process's memory, touched or not, so it is there only from the first use
/// to [`Self::settle`].
pub struct Memory<T> {
    memory: Cell<Option<NonNull<u8>>>,
    elements: u32,
    map: MapData,
    records: PhantomData<T>,
}

// SAFETY: the mapping is the process's, not a thread's, and `map` is a descriptor.
unsafe impl<T: Send> Send for Memory<T> {}

impl<T: aya::Pod> Memory<T> {
    /// Elements of an array map lie at multiples of eight bytes (`array_map_alloc` of the kernel).
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Of an array map that has `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// When it is no array, or of other records.
    pub fn new(name: &str, map: Map) -> Result<Self> {
        let Map::Array(map) = map else {
            bail!("the map `{name}` is no array")
        };
        let info = map.info()?;
        ensure!(
            info.value_size() as usize == size_of::<T>(),
            "the map `{name}` has elements of {} bytes instead of {}: it belongs to another version of uplink",
            info.value_size(),
            size_of::<T>()
        );
        Ok(Self {
            memory: Cell::new(None),
            elements: info.max_entries(),
            map,
            records: PhantomData,
        })
    }

    /// The mapping, made where there is none.
    fn memory(&self) -> Result<NonNull<u8>> {
        if let Some(memory) = self.memory.get() {
            return Ok(memory);
        }
        let memory = mapped(&self.map, self.length()).context("mapping a map")?;
        self.memory.set(Some(memory));
        Ok(memory)
    }

    /// How many elements there are.
    #[must_use]
    pub const fn elements(&self) -> u32 {
        self.elements
    }

    /// Where an element is; valid until [`Self::settle`].
    ///
    /// # Errors
    /// When there is none of this index, or the map cannot be mapped.
    pub fn at(&self, index: u32) -> Result<*mut T> {
        ensure!(
            index < self.elements,
            "element {index} of {} that there are",
            self.elements
        );
        // SAFETY: the index is below the number of elements, so the element lies within the mapping.
        Ok(unsafe { self.memory()?.as_ptr().add(index as usize * Self::STRIDE) }.cast())
    }

    /// Writes an element. Four bytes at most are seen whole by whoever reads meanwhile.
    ///
    /// # Errors
    /// When there is none of this index.
    pub fn write(&mut self, index: u32, value: T) -> Result<()> {
        let element = self.at(index)?;
        // SAFETY: the element is in the mapping and, at a multiple of eight bytes, aligned.
        unsafe { element.write_volatile(value) };
        Ok(())
    }

    /// Reads an element.
    ///
    /// # Errors
    /// When there is none of this index.
    pub fn read(&self, index: u32) -> Result<T> {
        let element = self.at(index)?;
        // SAFETY: as for `write`; every bit pattern is a record.
        Ok(unsafe { element.read_volatile() })
    }

    /// What was written is seen before anything that is written from now on.
    pub fn settle(&self) {
        fence(Ordering::Release);
        self.unmap();
    }

    /// The same map for another owner, such as another thread.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn another(&self, name: &str) -> Result<Self> {
        use std::os::fd::AsFd as _;
        let fd = self.map.fd().as_fd().try_clone_to_owned()?;
        Self::new(name, Map::Array(MapData::from_fd(fd)?))
    }
}

impl<T> Memory<T> {
    const fn length(&self) -> usize {
        self.elements as usize * size_of::<T>().next_multiple_of(8)
    }

    fn unmap(&self) {
        if let Some(memory) = self.memory.take() {
            // SAFETY: the mapping that `memory` made, with its length; nothing keeps a pointer into it.
            unsafe { libc::munmap(memory.as_ptr().cast(), self.length()) };
        }
    }
}

impl<T> Drop for Memory<T> {
    fn drop(&mut self) {
        self.unmap();
    }
}

fn mapped(map: &MapData, length: usize) -> Result<NonNull<u8>> {
    use std::os::fd::AsFd as _;
    // SAFETY: a fresh shared mapping of a map that is kept open beside it.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            map.fd().as_fd().as_raw_fd(),
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error().into());
    }
    NonNull::new(memory.cast()).context("it lies at address zero")
}
