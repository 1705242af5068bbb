"""
The interfaces that plugins and stores provide.
"""

from kvd.interfaces.dialects import IDialect, ISigningDialect
from kvd.interfaces.dispatch import (
    IConfigurablePolicy,
    IDispatchPolicy,
    IExtendedPolicy,
    IGatedPolicy,
    ILoadedProgram,
    IProgramPolicy,
)
from kvd.interfaces.stores import (
    Answer,
    IBoundedStoreMaker,
    ICachedValue,
    ICachingStore,
    IEngineStoreMaker,
    IFileStoreMaker,
    IFolderListing,
    IFolderStore,
    IHeldStoreMaker,
    IHits,
    IListing,
    IResumableUpload,
    IResumableUploads,
    IResumingStore,
    IStore,
    IStoreMaker,
    IStreamedValue,
    IUpload,
    IValue,
)

__all__ = [
    "Answer",
    "IBoundedStoreMaker",
    "ICachedValue",
    "ICachingStore",
    "IConfigurablePolicy",
    "IDialect",
    "IDispatchPolicy",
    "IEngineStoreMaker",
    "IExtendedPolicy",
    "IFileStoreMaker",
    "IFolderListing",
    "IFolderStore",
    "IGatedPolicy",
    "IHeldStoreMaker",
    "IHits",
    "IListing",
    "ILoadedProgram",
    "IProgramPolicy",
    "IResumableUpload",
    "IResumableUploads",
    "IResumingStore",
    "ISigningDialect",
    "IStore",
    "IStoreMaker",
    "IStreamedValue",
    "IUpload",
    "IValue",
]
