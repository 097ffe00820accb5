"""Draft and target in two processes: the client drafts, the server verifies, a link between."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "client": ["ApartForecast", "decode_apart"],
        "link": ["Conditions", "DirectLink", "LinkClosedError", "connect", "listen"],
        "server": ["conversation", "serve"],
    },
)
