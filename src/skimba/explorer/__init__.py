"""The explorer: a page on this machine that shows what pruning keeps, changes and costs, before a small server."""

from skimba.explorer.catalogue import PHOTO_GALLERY, Gallery, Offer, embedded_offers, named_offer
from skimba.explorer.server import ExplorerServer
from skimba.explorer.service import Explorer

__all__ = ["PHOTO_GALLERY", "Explorer", "ExplorerServer", "Gallery", "Offer", "embedded_offers", "named_offer"]
