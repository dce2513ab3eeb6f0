"""The process that decodes: which decoder it asks. Its life and death: `test_decoding`."""

import pytest
from pydicom import uid
from pydicom.pixels import get_decoder

from pathology_screen.io.decoder_process import plugin_of

COMPRESSED = (
    *(*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes),
    *(uid.JPEG2000Lossless, uid.JPEG2000, uid.RLELossless),
)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda one: one.keyword)
def test_the_decoder_of_every_syntax_is_installed(syntax):
    assert plugin_of(syntax) in get_decoder(syntax).available_plugins
