"""The process that decodes: which decoder it asks. Its life and death: `test_decoding`."""

from pydicom import uid
from pydicom.pixels import get_decoder

from pathology_screen.io.decoder_process import plugin_of


def test_the_decoder_of_every_syntax_is_installed():
    syntaxes = [*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes]
    for syntax in (*syntaxes, uid.JPEG2000Lossless, uid.JPEG2000, uid.RLELossless):
        assert plugin_of(syntax) in get_decoder(syntax).available_plugins
