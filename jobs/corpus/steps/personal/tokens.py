"""What stands in the text instead of personal data: one fixed token per kind."""

from __future__ import annotations

from jobs.corpus.cleaning_settings import PersonalData

TOKEN_OF: dict[PersonalData, str] = {
    "resident_number": "[주민등록번호]",
    "foreigner_number": "[외국인등록번호]",
    "driver_licence": "[운전면허번호]",
    "passport": "[여권번호]",
    "phone": "[전화번호]",
    "email": "[이메일]",
    "card": "[카드번호]",
    "account": "[계좌번호]",
    "ip_address": "[IP주소]",
}
TOKENS = frozenset(TOKEN_OF.values())
